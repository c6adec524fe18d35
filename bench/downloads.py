"""Downloads a second of a 150 KB export by the service, by bare FileResponse and by nginx; wrk is the client.

Every server is one process, and wrk has one thread. Rounds of all alternate, and ratios are medians over rounds.
"""

import asyncio
import contextlib
import itertools
import os
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import peers
from bench.against import argument_parser, compare
from bench.processes import HERE, Checkout, Server, free_port, service, serving
from bench.table import machine, median_ratio, print_table
from service.settings import Settings
from service.urls import Links

ROUNDS = 5
SECONDS = 4
CONNECTIONS = 50
SIZE = 150_000
SECRET = "0123456789abcdef0123456789abcdef"
SIGNING = {"SIGN_URLS": "true", "SIGNING_SECRET": SECRET}
NAME = f"export_{secrets.token_hex(16)}.webp"

STATIC = "**this service**, static link"
SIGNED = "**this service**, signed link"
FILE_RESPONSE = "aiohttp's FileResponse"
QUIET = "this service, static link, LOG_LEVEL=warning"
NGINX = "nginx"
STATIC_BY_NGINX = "this service behind nginx, static link"
SIGNED_BY_NGINX = "this service behind nginx, signed link, asked once a second"
EACH_BY_NGINX = "this service behind nginx, signed link, asked each time"

SAMPLE = Path(__file__).parent.parent / "docs" / "nginx.conf"

PLAIN_NGINX = """
events {}
http {
    sendfile on;
    tcp_nopush on;
    types { image/webp webp; }
    server { listen 8080; root /srv/image-export/storage/output; }
}
"""
# One process, as all servers here are, without logs, and with every file in its own directory.
NGINX_MAIN = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
"""
NGINX_HTTP = """
    access_log off;
    keepalive_requests 1000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
"""


@dataclass(slots=True)
class Contender:
    name: str
    server: Server
    link: Callable[[], str]
    behind: Server | None = None
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run(self, wrk: peers.Tool) -> None:
        url = self.server.url + self.link()
        with urllib.request.urlopen(url, timeout=10) as answer:
            if len(answer.read()) != SIZE:
                raise SystemExit(f"{self.name} does not send the export")
        cpu = self._cpu_seconds()
        command = (wrk.path, "--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{SECONDS}s", url)
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=10 * SECONDS, env=os.environ | wrk.environment
        )
        if re.search(r"Non-2xx|Socket errors", done.stdout):
            raise SystemExit(f"{self.name}: {done.stdout}")
        count = int(re.findall(r"(\d+) requests in", done.stdout)[0])
        self.rates.append(float(re.findall(r"Requests/sec: +([\d.]+)", done.stdout)[0]))
        self.cpu.append((self._cpu_seconds() - cpu) / count)

    def _cpu_seconds(self) -> float:
        return self.server.cpu_seconds() + (self.behind.cpu_seconds() if self.behind else 0)


@dataclass(frozen=True, slots=True)
class Servers:
    """Starts servers of the same exports; they end with `stack`."""

    stack: contextlib.ExitStack
    folder: Path
    exports: Path

    def service(self, checkout: Checkout, **settings: str) -> Server:
        return self.stack.enter_context(service(self.folder, checkout, OUTPUT_DIR=str(self.exports), **settings))

    def file_response(self) -> Server:
        port = free_port()
        command = (sys.executable, "-m", "bench.fileresponse", str(port), str(self.exports))
        return self.stack.enter_context(serving(command, port, self.folder))

    def nginx(self, tool: peers.Tool, config: str, behind: Server | None = None) -> Server:
        return self.stack.enter_context(_nginx(tool, self.folder, config, self.exports, behind))


def measure() -> tuple[list[Contender], list[str]]:
    wrk = peers.wrk()
    notes = [wrk.version]
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, contextlib.ExitStack() as stack:
        servers = Servers(stack, Path(scratch), write_export(Path(scratch)))
        contenders = [
            Contender(STATIC, servers.service(HERE), static_link),
            Contender(SIGNED, servers.service(HERE, **SIGNING), signed_link),
            Contender(QUIET, servers.service(HERE, LOG_LEVEL="warning"), static_link),
            Contender(FILE_RESPONSE, servers.file_response(), lambda: f"/{NAME}"),
        ]
        try:
            tool = peers.nginx()
            contenders += _with_nginx(servers, tool)
            notes.append(tool.version)
        except peers.MissingError as error:
            notes.append(f"missing: {error}")
        for number in range(ROUNDS):
            for contender in itertools.islice(itertools.cycle(contenders), number, number + len(contenders)):
                contender.run(wrk)
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)
    return contenders, notes


def _with_nginx(servers: Servers, tool: peers.Tool) -> list[Contender]:
    sample, behind = SAMPLE.read_text(), servers.service(HERE, ACCEL_REDIRECT_PREFIX="/_exports/", **SIGNING)
    return [
        Contender(NGINX, servers.nginx(tool, PLAIN_NGINX), lambda: f"/{NAME}"),
        Contender(STATIC_BY_NGINX, servers.nginx(tool, _unsigned(sample), behind), static_link),
        Contender(SIGNED_BY_NGINX, servers.nginx(tool, sample, behind), signed_link, behind),
        Contender(EACH_BY_NGINX, servers.nginx(tool, _without_cache(sample), behind), signed_link, behind),
    ]


def static_link() -> str:
    return f"/static/output/{NAME}"


def signed_link() -> str:
    return Links(Settings(sign_urls=True, signing_secret=SECRET)).build(NAME)


def write_export(folder: Path) -> Path:
    """A directory with one export: noise, which cannot be compressed, and need not be a picture."""
    exports = folder / "output"
    exports.mkdir()
    (exports / NAME).write_bytes(os.urandom(SIZE))
    return exports


async def measure_against(there: Checkout, rounds: int) -> None:
    """Compare the service with that of another checkout."""
    wrk = peers.wrk()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, contextlib.ExitStack() as stack:
        servers = Servers(stack, Path(scratch), write_export(Path(scratch)))
        here, other = (
            [
                Contender("static link", servers.service(checkout), static_link),
                Contender("signed link", servers.service(checkout, **SIGNING), signed_link),
            ]
            for checkout in (HERE, there)
        )
        await compare(lambda: _figures(here, wrk), lambda: _figures(other, wrk), rounds)


async def _figures(contenders: Sequence[Contender], wrk: peers.Tool) -> Mapping[str, float]:
    """One round of each contender."""
    figures = {}
    for contender in contenders:
        await asyncio.to_thread(contender.run, wrk)
        figures[f"{contender.name}: downloads/s"] = contender.rates[-1]
        figures[f"{contender.name}: server CPU µs each"] = contender.cpu[-1] * 1e6
    return figures


def _without_cache(sample: str) -> str:
    """The sample without the two locations that cache signed links."""
    location = r'^ {8}location (?:~ "\^/api/download/|= /_link ).*?^ {8}}\n'
    asking, removed = re.subn(location, "", sample, flags=re.MULTILINE | re.DOTALL)
    if removed != 2:
        raise SystemExit(f"{SAMPLE} has {removed} locations for signed links, not 2")
    return asking


def _unsigned(sample: str) -> str:
    """The sample with the location for unsigned links enabled."""
    return re.sub(r"^        #(?=location|    |})", "        ", sample, flags=re.MULTILINE)


@contextlib.contextmanager
def _nginx(tool: peers.Tool, scratch: Path, config: str, files: Path, behind: Server | None) -> Iterator[Server]:
    port = free_port()
    folder = scratch / f"nginx-{port}"
    folder.mkdir()
    # Started by root it would change to a user that may not read our directory.
    user = "user root;" if os.geteuid() == 0 else ""
    places = {
        "http {": f"http {{{NGINX_HTTP.format(folder=folder)}",
        "listen 8080": f"listen 127.0.0.1:{port}",
        "/srv/image-export/storage/output": str(files),
        "/var/cache/nginx/image-export": str(folder / "cache"),
        "/var/log/nginx": str(folder),
        "127.0.0.1:8000": f"127.0.0.1:{behind.port if behind else 9}",
    }
    for sample, own in places.items():
        config = config.replace(sample, own)
    path = folder / "nginx.conf"
    path.write_text(user + NGINX_MAIN.format(folder=folder) + config)
    command = (tool.path, "-e", str(folder / "error.log"), "-p", str(folder), "-c", str(path))
    with serving(command, port, folder, tool.environment) as server:
        yield server


def report(contenders: Sequence[Contender], notes: Sequence[str]) -> None:
    print(f"{machine()}; {', '.join(notes)}")
    print(f"{SIZE // 1000} KB, {CONNECTIONS} connections, {ROUNDS} rounds of {SECONDS} s", end="")
    by_name = {contender.name: contender for contender in contenders}
    rows = []
    for contender in contenders:
        cells = [contender.name, f"{statistics.median(contender.rates):,.0f}"]
        for peer in (FILE_RESPONSE, NGINX):
            known = by_name.get(peer)
            cells.append(f"{median_ratio(contender.rates, known.rates):.2f}" if known else "")
        rows.append([*cells, f"{statistics.median(contender.cpu) * 1e6:.0f}"])
    print_table(("", "downloads/s", "of FileResponse", "of nginx", "server CPU µs each"), rows)


def main() -> None:
    options = argument_parser(__doc__).parse_args()
    try:
        if options.against:
            asyncio.run(measure_against(options.against, options.rounds))
        else:
            report(*measure())
    except peers.MissingError as error:
        print(f"nothing measured, the client is missing: {error}")


if __name__ == "__main__":
    main()
