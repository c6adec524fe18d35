"""The contenders that export pictures, mostly as trios (PNG, JPEG and WebP): service, peers, bare codec calls."""

import asyncio
import contextlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from bench import bare, peers
from bench.processes import HERE, Checkout, Memory, Server, free_port, gemini, service, serving
from bench.workload import CONTENT_TYPE, SIZE, Original, form

PICTURES = 12
CLIENTS = 4
ROUND_SECONDS = 4.0
REQUEST_SECONDS = 300
CORES = len(os.sched_getaffinity(0))

OURS = "**this service**"
OURS_4 = "this service, png_compression 4"
OURS_THOROUGH = "this service, PNG_THOROUGH, png_compression {}"
OURS_BASE = "this service, over a base"
OURS_GENERATED = "this service, pictures of a local Gemini"
INLINE = "Pillow in an aiohttp handler, level 9"
INLINE_BASE = "Pillow in a handler, over a base"
BARE = "the bare codec calls"
BARE_BASE = "the bare codec calls, over a base"
SHARP_9 = "sharp, PNG level 9, adaptive filters"
SHARP = "sharp, its default PNG"
THUMBOR_9 = "thumbor, PNG level 9"
THUMBOR = "thumbor, its default PNG"

# Exports a picture, over a base if the contender composites, and returns the size of the trio in bytes.
Export = Callable[[Original, Original], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Round:
    seconds: float
    cpu: float
    trios: int
    size: int
    latencies: tuple[float, ...]

    @property
    def rate(self) -> float:
        return self.trios / self.seconds

    @property
    def cpu_per_trio(self) -> float:
        return self.cpu / self.trios

    @property
    def kb(self) -> float:
        return self.size / self.trios / 1000


@dataclass(slots=True)
class Contender:
    name: str
    export: Export
    cpu_seconds: Callable[[], float]
    server: Server | None = None
    rounds: list[Round] = field(default_factory=list)
    memory: Memory | None = None

    async def run(self, pictures: Sequence[Original], most_seconds: float = ROUND_SECONDS) -> None:
        """One round: complete passes over the pictures until that time has passed."""
        cpu, start = self.cpu_seconds(), time.perf_counter()
        queue, done = _passes(pictures, most_seconds), list[tuple[float, int]]()

        async def client() -> None:
            for picture, base in queue:
                begin = time.perf_counter()
                size = await self.export(picture, base)
                done.append((time.perf_counter() - begin, size))

        async with asyncio.timeout(REQUEST_SECONDS * len(pictures)):
            await asyncio.gather(*(client() for _ in range(CLIENTS)))
        seconds = time.perf_counter() - start
        latencies, sizes = zip(*done, strict=True)
        self.rounds.append(Round(seconds, self.cpu_seconds() - cpu, len(done), sum(sizes), latencies))
        self.memory = self.server.memory() if self.server else None


def _passes(pictures: Sequence[Original], seconds: float) -> Iterator[tuple[Original, Original]]:
    """The pictures, each with another one as its base, in complete passes."""
    end = time.perf_counter() + seconds
    while True:
        yield from zip(pictures, (*pictures[1:], pictures[0]), strict=True)
        if time.perf_counter() > end:
            return


def by_service(session: aiohttp.ClientSession, server: Server, over_base: bool, **fields: str) -> Export:
    async def export(picture: Original, base: Original) -> int:
        width, height = map(str, SIZE)
        body = form(picture.data, base.data if over_base else None, width=width, height=height, **fields)
        return await _posted(session, f"{server.url}/api/exports", body, CONTENT_TYPE)

    return export


def _generated(session: aiohttp.ClientSession, server: Server) -> Export:
    """POST /api/thumbnails; the given pictures are not used, since Gemini sends its own."""

    async def export(picture: Original, base: Original) -> int:
        width, height = map(str, SIZE)
        body = form(None, script=picture.name, width=width, height=height)
        answer = await answered(session, f"{server.url}/api/thumbnails", body, CONTENT_TYPE)
        return total_size(answer["variations"][0]["exports"])

    return export


def _inline(session: aiohttp.ClientSession, server: Server, over_base: bool) -> Export:
    async def export(picture: Original, base: Original) -> int:
        body = form(picture.data, base.data if over_base else None)
        return await _posted(session, server.url, body, CONTENT_TYPE)

    return export


def by_sharp(session: aiohttp.ClientSession, server: Server) -> Export:
    async def export(picture: Original, base: Original) -> int:
        return await _posted(session, server.url, picture.data, "image/png")

    return export


def _thumbor(session: aiohttp.ClientSession, server: Server) -> Export:
    """One request for each format, answered with the picture itself; thumbor decodes for each."""

    async def one(picture: Original, kind: str) -> int:
        filters = f"filters:format({kind}):quality({80 if kind == 'webp' else 85})"
        async with session.get(f"{server.url}/unsafe/{SIZE[0]}x{SIZE[1]}/{filters}/{picture.name}.png") as answer:
            answer.raise_for_status()
            return len(await answer.read())

    async def export(picture: Original, base: Original) -> int:
        return sum(await asyncio.gather(*(one(picture, kind) for kind in ("png", "jpeg", "webp"))))

    return export


async def _posted(session: aiohttp.ClientSession, url: str, body: bytes, kind: str) -> int:
    return total_size((await answered(session, url, body, kind))["exports"])


async def answered(session: aiohttp.ClientSession, url: str, body: bytes, kind: str) -> Any:
    async with session.post(url, data=aiohttp.BytesPayload(body), headers={"Content-Type": kind}) as answer:
        if not answer.ok:
            raise SystemExit(f"{url}: {answer.status} {await answer.text()}")
        return await answer.json()


def total_size(exports: Mapping[str, Mapping[str, int]]) -> int:
    return sum(export["size"] for export in exports.values())


class BareCalls:
    """Codec calls in one process for each core, one picture at a time."""

    def __init__(self, executor: ProcessPoolExecutor, call: Callable[..., bare.Made], over_base: bool = False) -> None:
        self._executor = executor
        self._call = call
        self._over_base = over_base
        self._free = asyncio.Semaphore(CORES)
        self._cpu = 0.0

    def cpu_seconds(self) -> float:
        return self._cpu

    async def export(self, picture: Original, base: Original) -> int:
        files = (picture.data, base.data) if self._over_base else (picture.data,)
        async with self._free:
            made = await asyncio.wrap_future(self._executor.submit(self._call, *files))
        self._cpu += made.cpu_seconds
        return made.size


@dataclass(slots=True)
class Contenders:
    """All contenders; the server of each is started when it is added, and ends with `stack`."""

    stack: contextlib.ExitStack
    folder: Path
    session: aiohttp.ClientSession
    all: list[Contender] = field(default_factory=list)

    def add_service(self, checkout: Checkout = HERE) -> str:
        server = self.stack.enter_context(service(self.folder, checkout))
        self.add(OURS, server, by_service(self.session, server, False))
        self.add(OURS_4, server, by_service(self.session, server, False, png_compression="4"))
        self.add(OURS_BASE, server, by_service(self.session, server, True))
        return ""

    def add_generation(self, checkout: Checkout = HERE) -> str:
        pictures = self.stack.enter_context(gemini(self.folder))
        settings = {"GEMINI_BASE_URL": pictures.url, "LOG_LEVEL": "warning"}
        server = self.stack.enter_context(service(self.folder, checkout, **settings))
        self.add(OURS_GENERATED, server, _generated(self.session, server))
        return ""

    def add_thorough_service(self) -> str:
        thorough = self.stack.enter_context(service(self.folder, PNG_THOROUGH="true"))
        for level in ("8", "9"):
            export = by_service(self.session, thorough, False, png_compression=level)
            self.add(OURS_THOROUGH.format(level), thorough, export)
        return ""

    def add_pillow(self) -> str:
        port = free_port()
        inline = self.serve(port, sys.executable, "-m", "bench.inline", str(port), str(self.folder))
        self.add(INLINE, inline, _inline(self.session, inline, False))
        self.add(INLINE_BASE, inline, _inline(self.session, inline, True))
        return ""

    def add_sharp(self) -> str:
        tool = peers.sharp()
        for name, png in ((SHARP_9, {"compressionLevel": 9, "adaptiveFiltering": True}), (SHARP, {})):
            server = self.serve_sharp(tool, png=png, jpeg={"quality": 85}, webp={"quality": 80})
            self.add(name, server, by_sharp(self.session, server))
        return tool.version

    def serve_sharp(self, tool: peers.Tool, **formats: Mapping[str, object]) -> Server:
        """Sharp in a server of its own, which makes these formats with these options."""
        port = free_port()
        script = str(Path(__file__).with_name("sharp.js"))
        command = (tool.path, script, str(port), str(self.folder), json.dumps(formats))
        return self.serve(port, *command, environment=tool.environment)

    def add_thumbor(self) -> str:
        tool = peers.thumbor()
        for name, level in ((THUMBOR_9, 9), (THUMBOR, 6)):
            port = free_port()
            options = ("-i", "127.0.0.1", "-p", str(port), "--processes", str(CORES))
            server = self.serve(port, tool.path, *options, "-c", _thumbor_config(self.folder, level))
            self.add(name, server, _thumbor(self.session, server))
        return tool.version

    def add_bare(self) -> str:
        executor = self.executor()
        for name, over_base in ((BARE, False), (BARE_BASE, True)):
            self.add_calls(name, BareCalls(executor, bare.export, over_base))
        return ""

    def executor(self) -> ProcessPoolExecutor:
        return self.stack.enter_context(ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn")))

    def add_calls(self, name: str, calls: BareCalls) -> Contender:
        self.all.append(Contender(name, calls.export, calls.cpu_seconds))
        return self.all[-1]

    def serve(self, port: int, *command: str, environment: dict[str, str] | None = None) -> Server:
        return self.stack.enter_context(serving(command, port, self.folder, environment))

    def add(self, name: str, server: Server, export: Export) -> Contender:
        self.all.append(Contender(name, export, server.cpu_seconds, server))
        return self.all[-1]


def _thumbor_config(folder: Path, level: int) -> str:
    path = folder / f"thumbor-{level}.conf"
    settings = {
        "LOADER": "thumbor.loaders.file_loader",
        "FILE_LOADER_ROOT_PATH": str(folder),
        "STORAGE": "thumbor.storages.no_storage",
        "PNG_COMPRESSION_LEVEL": level,
    }
    path.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    return str(path)
