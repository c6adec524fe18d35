"""A client's side of the service: forms byte by byte, pictures, raw sockets, and the service under test itself."""

import asyncio
import contextlib
import io
import json
import os
import random
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from PIL import Image
from yarl import URL
from zlib_ng import zlib_ng

from service.app import create_app
from service.emulator.app import Emulator, Fault, _Gallery, _responder
from service.emulator.wire import GenerateRequest
from service.server.connections import listening
from service.settings import Settings
from service.store.layout import AREAS
from tests.description import assert_described
from tests.imaging.pictures import RGB, chunk

BOUNDARY = "----the-boundary"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
KEY = "a-key-for-the-emulator"
SCRIPT = "My awesome video"
ORDER_ID = re.compile(r"req_[0-9a-f]{32}")


def picture_bytes(
    size: tuple[int, int] = (64, 48), colour: str = "red", kind: str = "PNG", mode: str = "RGB", **options: Any
) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, kind, **options)
    return out.getvalue()


def swatch(size: tuple[int, int], colour: int) -> bytes:
    """An RGB PNG of one colour, 0xRRGGBB: of a usual size in 2 ms of CPU, where Pillow takes 12."""
    head = struct.pack(">IIBBBBB", *size, 8, RGB, 0, 0, 0)
    rows = (b"\0" + colour.to_bytes(3) * size[0]) * size[1]
    data = zlib_ng.compress(rows, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def decoded(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and ends there."""
    small = picture_bytes((1, 1))
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return small[:16] + head + small[24:]


class QuickEmulator(Emulator):
    """The emulator, but its pictures are plain swatches of the true size, another colour each: drawing takes time."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._gallery = _Swatches(0, 1)

    def play(self, *faults: Fault, then: Fault = None) -> None:
        """Meet the next requests with these faults in turn, and all after them with `then`."""
        self._faults = [_responder(None)] * self.requests + [_responder(fault) for fault in faults]
        self._then = _responder(then)


class _Swatches(_Gallery):
    painted = 0

    async def picture(self, received: GenerateRequest) -> bytes:
        self.painted += 1
        return await asyncio.to_thread(swatch, received.pixels, self.painted * 0x2F4F1D % 0x1000000)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a form, as raw as it needs to be; `filename` None: a text."""

    name: str
    data: bytes
    filename: str | None = None
    headers: tuple[str, ...] = ()

    def encode(self) -> bytes:
        filename = "" if self.filename is None else f'; filename="{self.filename}"'
        lines = [f'Content-Disposition: form-data; name="{self.name}"{filename}', *self.headers]
        return "\r\n".join([f"--{BOUNDARY}", *lines, "", ""]).encode("utf-8", "surrogateescape") + self.data + b"\r\n"


Field = Part | tuple[str, str]


def upload(data: bytes, name: str = "image", filename: str = "picture.png") -> Part:
    return Part(name, data, filename, ("Content-Type: image/png",))


def form(*fields: Field) -> bytes:
    parts = [part if isinstance(part, Part) else Part(part[0], part[1].encode()) for part in fields]
    return b"".join(part.encode() for part in parts) + f"--{BOUNDARY}--\r\n".encode()


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Running:
    """The service on a socket of its own, with the emulator that it calls."""

    app: web.Application
    settings: Settings
    emulator: Emulator
    session: aiohttp.ClientSession
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, data: Any = None, **options: Any
    ) -> Answer:
        """One request; a redirect or an error is an answer like any other. Those of the service are as described."""
        url = URL(path if path.startswith("http") else f"{self.url}{path}", encoded=True)
        async with self.session.request(
            method, url, headers=headers, data=data, allow_redirects=False, **options
        ) as got:
            answer = Answer(got.status, got.headers, await got.read())
        # What a proxy answers by itself is not the service's.
        if url.port == self.port:
            assert_described(method, url.raw_path, answer.status, answer.headers, answer.body)
        return answer

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    async def post(self, path: str, *fields: Field, headers: Mapping[str, str] | None = None) -> Answer:
        return await self.post_body(path, form(*fields), headers=headers)

    async def post_body(
        self, path: str, body: Any, content_type: str | None = CONTENT_TYPE, headers: Mapping[str, str] | None = None
    ) -> Answer:
        kind = {} if content_type is None else {"Content-Type": content_type}
        skip = ("Content-Type",) if content_type is None else ()
        return await self.ask("POST", path, headers={**kind, **(headers or {})}, data=body, skip_auto_headers=skip)

    async def thumbnails(
        self, *fields: Field, script: str = SCRIPT, headers: Mapping[str, str] | None = None
    ) -> Answer:
        return await self.post("/api/thumbnails", ("script", script), *fields, headers=headers)

    async def exports(self, *fields: Field, headers: Mapping[str, str] | None = None) -> Answer:
        return await self.post("/api/exports", *fields, headers=headers)

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def raw(self, request: bytes) -> Answer:
        """Send these bytes, and read the response; the connection stays open until then."""
        async with self.connected() as (reader, writer):
            writer.write(request)
            return await read_answer(reader)

    async def counter(self, name: str) -> float:
        """The sum of a metric over its labels."""
        text = (await self.get("/metrics")).body.decode()
        lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def area(self, name: str) -> list[str]:
        """The names of its files, except those that a probe of the disk creates for a moment."""
        names = (entry.name for entry in Path(self.settings.storage_dir, name).iterdir())
        return sorted(name for name in names if not name.startswith(".probe-"))

    def files(self) -> dict[str, list[str]]:
        return {area: self.area(area) for area in AREAS}

    @contextlib.contextmanager
    def nothing_spent_or_left(self) -> Iterator[None]:
        """Assert that the code inside neither calls Gemini nor leaves files."""
        requests, files = self.emulator.requests, self.files()
        yield
        assert self.emulator.requests == requests
        # Those of earlier requests may have been removed meanwhile.
        assert not {area: left for area, names in self.files().items() if (left := {*names} - {*files[area]})}


async def read_answer(reader: asyncio.StreamReader, *, body: bool = True) -> Answer:
    """One answer off a raw socket; `body` False: as to a HEAD."""
    async with asyncio.timeout(20):
        head = await reader.readuntil(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.strip().title(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        data = await reader.readexactly(int(headers.get("Content-Length", "0"))) if body else b""
    return Answer(int(status_line.split()[1]), headers, data)


async def until(holds: Callable[[], object], seconds: float = 20) -> None:
    """Wait for something that happens on another task or process; the wait is bounded."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.005)


async def until_async(holds: Callable[[], Awaitable[object]], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(settings: Settings, emulator: Emulator, listen: str = "127.0.0.1") -> AsyncIterator[Running]:
    """The service as it is served, calling this emulator over a real socket."""
    async with contextlib.AsyncExitStack() as stack:
        [(host, port)] = await stack.enter_async_context(listening(emulator.create_app(), "127.0.0.1", 0))
        if settings.gemini_base_url is None:
            settings = settings.model_copy(update={"gemini_base_url": f"http://{host}:{port}"})
        app = create_app(settings)
        [(host, port)] = await stack.enter_async_context(listening(app, listen, 0))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Running(app, settings, emulator, session, host, port)


@contextlib.contextmanager
def on_a_thread(app: web.Application) -> Iterator[str]:
    """Serves an app beside whatever this thread does; gives its address."""
    loop, stack = asyncio.new_event_loop(), contextlib.AsyncExitStack()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        opened = asyncio.run_coroutine_threadsafe(stack.enter_async_context(listening(app, "127.0.0.1", 0)), loop)
        [(host, port)] = opened.result(20)
        yield f"http://{host}:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Path]:
    """A real disk of so many MiB, mounted on `folder`; skips the test where nothing may be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_up(disk: Path) -> None:
    """Leave no free block, as another process would."""
    status = os.statvfs(disk)
    with (disk / "of-another-process").open("ab") as file:
        os.posix_fallocate(file.fileno(), file.tell(), status.f_bavail * status.f_frsize)


def open_descriptors() -> int:
    """The number of open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def assert_problem(answer: Answer, status: int, code: str, *said: str) -> dict[str, Any]:
    """The one form of every error; returns its body."""
    assert (answer.status, answer.json.get("code")) == (status, code), answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    body: dict[str, Any] = answer.json
    names = {"type", "title", "status", "detail", "code", "request_id", "retryable", "billed"}
    assert set(body) - {"errors"} == names
    assert body["status"] == status
    # The exchange's, unless there is an order.
    assert body["request_id"] == answer.headers["X-Request-Id"] or ORDER_ID.fullmatch(body["request_id"])
    assert isinstance(body["retryable"], bool)
    assert body["type"].endswith(f"/docs#problem-{code}")
    assert body["title"]
    for words in said:
        assert words in body["detail"], body["detail"]
    return body


def export_names(exports: Mapping[str, Mapping[str, Any]]) -> Sequence[str]:
    return [export["file_path"].removeprefix("output/") for export in exports.values()]


def make_old(path: Path, days: float, content: bytes = b"x") -> Path:
    """A file that was last written so many days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    mark = time.time() - days * 86_400
    os.utime(path, (mark, mark))
    return path


def bare_environment(**more: str) -> dict[str, str]:
    """For a process that must not see the settings of this one: what any program needs, and `more`."""
    names = ("PATH", "HOME", "LANG", "SSL_CERT_FILE")
    return {name: os.environ[name] for name in names if name in os.environ} | more


def free_port() -> int:
    """A port for a process that is started with it, below those that the kernel gives to any other socket."""
    while True:
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", random.randrange(10_000, 32_000)))
            port: int = free.getsockname()[1]
            return port


def alive(pid: int) -> bool:
    """Whether a process runs: one that ended and waits for its parent, a zombie, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
