"""Instructions that the server process of this checkout, and of another, execute for a request, by callgrind.

Unlike times, they are the same in every run within 0.1 %, also on a busy machine. What the kernel and the workers do is
not counted: `bench.service` and `bench.downloads` measure that.
"""

import contextlib
import http.client
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import peers
from bench.against import argument_parser
from bench.downloads import NAME, SIGNING, signed_link, write_export
from bench.processes import HERE, Checkout, Server, gemini, service
from bench.table import machine, print_table
from bench.workload import CONTENT_TYPE, SIZE, drawings, form

# Valgrind runs a program 50 times slower.
REQUEST_SECONDS = 120
WARM_UP = 10
COUNTED = __file__.replace("instructions", "counted")

# Sends one request over an open connection.
Send = Callable[[http.client.HTTPConnection], None]


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    requests: int
    settings: dict[str, str]
    send: Send


def _get(link: Callable[[], str]) -> Send:
    def send(connection: http.client.HTTPConnection) -> None:
        connection.request("GET", link())
        _read(connection)

    return send


def _post(path: str, body: bytes) -> Send:
    def send(connection: http.client.HTTPConnection) -> None:
        connection.request("POST", path, body, {"Content-Type": CONTENT_TYPE})
        _read(connection)

    return send


def _read(connection: http.client.HTTPConnection) -> None:
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != http.HTTPStatus.OK:
        raise SystemExit(f"the service answered {answer.status}: {body[:500]!r}")


def _cases(exports: Path, gemini_url: str) -> list[Case]:
    width, height = map(str, SIZE)
    [drawing] = drawings(1)
    picture = form(drawing.data, width=width, height=height)
    script = form(None, script="A lighthouse at dawn", width=width, height=height)
    output = {"OUTPUT_DIR": str(exports)}
    return [
        Case("download, static link", 500, output, _get(lambda: f"/static/output/{NAME}")),
        Case("download, signed link", 500, output | SIGNING, _get(signed_link)),
        Case("POST /api/exports", 20, {}, _post("/api/exports", picture)),
        Case("POST /api/thumbnails", 20, {"GEMINI_BASE_URL": gemini_url}, _post("/api/thumbnails", script)),
    ]


def _count(case: Case, checkout: Checkout, folder: Path) -> float:
    """Instructions per request; the server runs 50 times slower than without valgrind."""
    profiles = Path(tempfile.mkdtemp(dir=folder))
    with _counted_service(checkout, folder, profiles, case.settings) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=REQUEST_SECONDS)
        for _ in range(WARM_UP):
            case.send(connection)
        _control(server, "--instr=on")
        for _ in range(case.requests):
            case.send(connection)
        _control(server, "--instr=off")
        connection.close()
        _control(server, "--dump")
        return _dumped(profiles) / case.requests


@contextlib.contextmanager
def _counted_service(checkout: Checkout, folder: Path, profiles: Path, settings: dict[str, str]) -> Iterator[Server]:
    valgrind = (peers.valgrind().path, "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={profiles}/%p")
    with service(folder, checkout, (COUNTED,), valgrind, **settings) as server:
        yield server


def _control(server: Server, option: str) -> None:
    subprocess.run(["callgrind_control", option, str(server.pid)], check=True, capture_output=True)


def _dumped(profiles: Path) -> int:
    """The count of the dump, as soon as it is written: callgrind_control does not wait for that."""
    deadline = time.monotonic() + REQUEST_SECONDS
    while time.monotonic() < deadline:
        for path in profiles.iterdir():
            totals = re.findall(r"^totals: (\d+)$", path.read_text(), re.MULTILINE)
            if totals and int(totals[0]):
                return int(totals[0])
        time.sleep(0.1)
    raise SystemExit("callgrind wrote no profile")


def main() -> None:
    options = argument_parser(__doc__).parse_args()
    checkouts = [HERE, options.against] if options.against else [HERE]
    print(machine(), end="")
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, gemini(Path(scratch)) as pictures:
        for case in _cases(write_export(Path(scratch)), pictures.url):
            counts = [_count(case, checkout, Path(scratch)) for checkout in checkouts]
            rows.append([case.name, *(f"{count:,.0f}" for count in counts), f"{counts[0] / counts[-1]:.3f}"])
            print(f"{case.name} is counted", file=sys.stderr, flush=True)
    print_table(("instructions per request", "here", "there", "here to there"), rows)


if __name__ == "__main__":
    try:
        main()
    except peers.MissingError as error:
        print(f"nothing counted: {error}")
