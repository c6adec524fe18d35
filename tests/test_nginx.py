"""docs/nginx.conf as nginx reads it: exports are sent, refusals stay ours, and no log holds a signature."""

import asyncio
import contextlib
import os
import re
import shutil
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio

from service.imaging.formats import TABLE
from service.server.keys import EXPORTS
from tests.conftest import Serve
from tests.handlers.test_downloads import DATA, SECRET, put
from tests.helpers import Answer, Running, assert_problem, free_port, until, until_async

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SAMPLE = Path(__file__).parents[1] / "docs" / "nginx.conf"

LONG_AGO = "Thu, 01 Jan 1970 00:00:00 GMT"

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]


def configured(folder: Path, port: int, service_port: int, output: Path) -> str:
    """docs/nginx.conf adapted to run in the foreground and within `folder`."""
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    places = {
        "http {": f"http {{\n{temporary}",
        "listen 8080": f"listen 127.0.0.1:{port}",
        "/srv/image-export/storage/output": str(output),
        "/var/cache/nginx": str(folder),
        "/var/log/nginx": str(folder),
        "127.0.0.1:8000": f"127.0.0.1:{service_port}",
    }
    text = SAMPLE.read_text()
    for sample, own in places.items():
        assert sample in text
        text = text.replace(sample, own)
    user = "user root;\n" if os.geteuid() == 0 else ""
    return f"{user}daemon off;\nworker_processes 1;\npid {folder}/pid;\nerror_log {folder}/main.log info;\n{text}"


@dataclass
class Nginx:
    service: Running
    folder: Path
    url: str

    async def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.service.ask(method, f"{self.url}{path}", headers=given)

    async def is_gone(self, url: str) -> bool:
        return (await self.get(url)).status == 404

    def link(self) -> tuple[str, str]:
        """A signed link to a new export, and its name."""
        name = put(self.service, ".webp")
        return self.service.app[EXPORTS].links.build(name), name

    def logs(self) -> str:
        return "".join(path.read_text() for path in self.folder.glob("*.log"))


@contextlib.asynccontextmanager
async def nginx_before(service: Running, folder: Path, service_port: int | None = None) -> AsyncIterator[Nginx]:
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(configured(folder, port, service_port or service.port, service.settings.area("output")))
    command = (str(NGINX), "-e", str(folder / "start.log"), "-p", str(folder), "-c", str(config))
    tried = await asyncio.create_subprocess_exec(*command, "-t", stderr=asyncio.subprocess.PIPE)
    _, said = await tried.communicate()
    assert tried.returncode == 0, said
    process = await asyncio.create_subprocess_exec(*command)
    try:
        await until(lambda: process.returncode is not None or _listens(port))
        yield Nginx(service, folder, f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        await process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest_asyncio.fixture(loop_scope="session")
async def nginx(serve: Serve, tmp_path: Path) -> AsyncIterator[Nginx]:
    service = await serve(sign_urls=True, signing_secret=SECRET, accel_redirect_prefix="/_exports/")
    folder = tmp_path / "nginx"
    folder.mkdir()
    async with nginx_before(service, folder) as front:
        yield front


async def test_nginx_sends_exports_and_evaluates_what_is_asked_of_them(nginx: Nginx) -> None:
    url, name = nginx.link()
    got = await nginx.get(url)
    assert (got.status, got.body) == (200, DATA)
    assert got.headers["Content-Type"] == "image/webp"
    assert got.headers["Cache-Control"].startswith("private, max-age=")
    assert name in got.headers["Content-Disposition"]
    assert "X-Accel-Redirect" not in got.headers
    etag = got.headers["ETag"]
    assert (await nginx.get(url, If_None_Match=etag)).status == 304
    part = await nginx.get(url, Range="bytes=2-4", If_Match=etag)
    assert (part.status, part.body) == (206, DATA[2:5])
    assert (await nginx.get(url, "HEAD", If_Match="*")).status == 200
    assert (await nginx.get(url, If_Unmodified_Since=got.headers["Last-Modified"])).status == 200


@pytest.mark.parametrize(
    ("suffix", "mime"),
    [(row.suffix, row.mime) for row in TABLE.values() if row.encoding],
)
async def test_nginx_names_the_type_of_every_format(nginx: Nginx, suffix: str, mime: str) -> None:
    name = put(nginx.service, suffix)
    got = await nginx.get(nginx.service.app[EXPORTS].links.build(name))
    assert (got.status, got.body, got.headers["Content-Type"]) == (200, DATA, mime)
    # The location of signed links has a header that those of the service lack.
    assert "X-Request-Id" not in got.headers


async def test_what_is_refused_behind_nginx_is_a_problem(nginx: Nginx) -> None:
    url, name = nginx.link()
    path = f"/api/download/{name}"
    assert_problem(await nginx.get(url, "DELETE"), 405, "method_not_allowed")
    assert_problem(await nginx.get(f"{url[:-4]}0000"), 403, "bad_signature")
    assert_problem(await nginx.get(path), 403, "bad_signature")
    assert_problem(await nginx.get(url, If_Match='"other"'), 412, "precondition_failed")
    assert_problem(await nginx.get(url, If_Unmodified_Since=LONG_AGO), 412, "precondition_failed")
    Path(nginx.service.settings.area("output"), name).unlink()
    # open_file_cache_valid is one second.
    await until_async(lambda: nginx.is_gone(url))
    assert_problem(await nginx.get(url), 404, "not_found")


async def test_no_log_of_nginx_holds_a_signature(nginx: Nginx) -> None:
    url, name = nginx.link()
    signature = parse_qs(urlsplit(url).query)["signature"][0]
    for headers in ({}, {"Range": "bytes=0-1"}, {"Range": "bytes=99999-"}, {"If_Match": '"other"'}, {"Referer": url}):
        for method in ("GET", "HEAD", "POST"):
            await nginx.get(url, method, **headers)
    await nginx.get(f"{url[:-4]}0000")
    await nginx.get(f"{url}&more=1")
    await nginx.get(f"/{name}?{urlsplit(url).query}")
    await nginx.get("/healthz?token=secret", Referer=f"{nginx.url}{url}")
    # A request that nginx itself refuses, and a file that it cannot read.
    for malformed in (f"GET {url} HTTP/9.9\r\n\r\n", f"GET {url} HTTP/1.1\r\nHost: a b\r\n\r\n",
                      f"GET {url}{'x' * 40_000} HTTP/1.1\r\n\r\n", f"{url} GET HTTP/1.1\r\n\r\n"):  # fmt: skip
        await _send(nginx, malformed)
    output = nginx.service.settings.area("output")
    os.rename(output, nginx.folder / "elsewhere")
    output.symlink_to(output)
    await nginx.get(url)
    output.unlink()
    output.mkdir()
    text = nginx.logs()
    assert signature[:16] not in text
    assert "secret" not in text
    assert re.search(rf'"GET /api/download/{name} HTTP/1.1" 200 \d+ [\d.]+ ', text)
    assert re.search(rf'"GET /api/download/{name} HTTP/1.1" 403 \d+ [\d.]+ "403" "req_[0-9a-f]{{32}}"', text)


async def test_no_log_of_nginx_holds_a_signature_when_the_service_is_down(nginx: Nginx, tmp_path: Path) -> None:
    url, name = nginx.link()
    folder = tmp_path / "alone"
    folder.mkdir()
    async with nginx_before(nginx.service, folder, free_port()) as alone:
        assert (await alone.get(url)).status == 502
        assert (await alone.get(f"/nowhere?{urlsplit(url).query}")).status == 502
        text = alone.logs()
    assert parse_qs(urlsplit(url).query)["signature"][0][:16] not in text
    assert f'"GET /api/download/{name} HTTP/1.1" 502 ' in text


async def _send(nginx: Nginx, request: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(nginx.url).port)
    writer.write(request.encode())
    async with asyncio.timeout(20):
        await reader.read(1000)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
