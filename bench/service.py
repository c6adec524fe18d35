"""Trios (PNG, JPEG and WebP of one picture) through the service and through its peers, side by side.

Every contender gets the same pictures from the same four clients, a round each in turn; ratios are medians over rounds.
"""

import argparse
import asyncio
import contextlib
import itertools
import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from bench import bare, peers
from bench.processes import Memory, Server, free_port, service, serving
from bench.table import machine, median_ratio, percentile, print_table
from bench.workload import CONTENT_TYPE, SIZE, Original, form, originals

PICTURES = 12
ROUNDS = 5
CLIENTS = 4
ROUND_SECONDS = 4.0
REQUEST_SECONDS = 60
CORES = len(os.sched_getaffinity(0))
HERE = Path(__file__).parent

OURS = "**this service**"
OURS_4 = "this service, png_compression 4"
OURS_THOROUGH = "this service, PNG_THOROUGH, png_compression {}"
OURS_BASE = "this service, over a base"
INLINE = "Pillow in an aiohttp handler, level 9"
INLINE_BASE = "Pillow in a handler, over a base"
BARE = "the bare codec calls"
BARE_BASE = "the bare codec calls, over a base"
SHARP_9 = "sharp, PNG level 9, adaptive filters"
SHARP = "sharp, its default PNG"
THUMBOR_9 = "thumbor, PNG level 9"
THUMBOR = "thumbor, its default PNG"

# Size in bytes of the trio that came of a picture over a base; the base is left out where there is none.
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

    async def run(self, pictures: Sequence[Original]) -> None:
        """One round: whole passes over the pictures, until ROUND_SECONDS are over."""
        cpu, start = self.cpu_seconds(), time.perf_counter()
        line, done = _passes(pictures), list[tuple[float, int]]()

        async def client() -> None:
            for picture, base in line:
                begin = time.perf_counter()
                size = await self.export(picture, base)
                done.append((time.perf_counter() - begin, size))

        async with asyncio.timeout(REQUEST_SECONDS * PICTURES):
            await asyncio.gather(*(client() for _ in range(CLIENTS)))
        seconds = time.perf_counter() - start
        latencies, sizes = zip(*done, strict=True)
        self.rounds.append(Round(seconds, self.cpu_seconds() - cpu, len(done), sum(sizes), latencies))
        self.memory = self.server.memory() if self.server else None


def _passes(pictures: Sequence[Original]) -> Iterator[tuple[Original, Original]]:
    """Each picture with another one as its base."""
    end = time.perf_counter() + ROUND_SECONDS
    while True:
        yield from zip(pictures, (*pictures[1:], pictures[0]), strict=True)
        if time.perf_counter() > end:
            return


def _ours(session: aiohttp.ClientSession, server: Server, over_base: bool, **fields: str) -> Export:
    async def export(picture: Original, base: Original) -> int:
        width, height = map(str, SIZE)
        body = form(picture.data, base.data if over_base else None, width=width, height=height, **fields)
        return await _posted(session, f"{server.url}/api/exports", body, CONTENT_TYPE)

    return export


def _inline(session: aiohttp.ClientSession, server: Server, over_base: bool) -> Export:
    async def export(picture: Original, base: Original) -> int:
        body = form(picture.data, base.data if over_base else None)
        return await _posted(session, server.url, body, CONTENT_TYPE)

    return export


def _sharp(session: aiohttp.ClientSession, server: Server) -> Export:
    async def export(picture: Original, base: Original) -> int:
        return await _posted(session, server.url, picture.data, "image/png")

    return export


def _thumbor(session: aiohttp.ClientSession, server: Server) -> Export:
    """Its pictures come in the answers, one request a format; it decodes for each."""

    async def one(picture: Original, kind: str) -> int:
        filters = f"filters:format({kind}):quality({80 if kind == 'webp' else 85})"
        async with session.get(f"{server.url}/unsafe/{SIZE[0]}x{SIZE[1]}/{filters}/{picture.name}.png") as answer:
            answer.raise_for_status()
            return len(await answer.read())

    async def export(picture: Original, base: Original) -> int:
        return sum(await asyncio.gather(*(one(picture, kind) for kind in ("png", "jpeg", "webp"))))

    return export


async def _posted(session: aiohttp.ClientSession, url: str, body: bytes, kind: str) -> int:
    async with session.post(url, data=aiohttp.BytesPayload(body), headers={"Content-Type": kind}) as answer:
        if not answer.ok:
            raise SystemExit(f"{url}: {answer.status} {await answer.text()}")
        exports = (await answer.json())["exports"]
        return sum(export["size"] for export in exports.values())


class _Bare:
    """The codec calls in as many processes as there are cores, a picture at a time."""

    def __init__(self, executor: ProcessPoolExecutor, over_base: bool) -> None:
        self._executor = executor
        self._over_base = over_base
        self._free = asyncio.Semaphore(CORES)
        self._cpu = 0.0

    def cpu_seconds(self) -> float:
        return self._cpu

    async def export(self, picture: Original, base: Original) -> int:
        under = base.data if self._over_base else None
        async with self._free:
            made = await asyncio.wrap_future(self._executor.submit(bare.export, picture.data, under))
        self._cpu += made.cpu_seconds
        return made.size


@dataclass(slots=True)
class Line:
    """Those who take part: each is started as it joins, and ends with the stack."""

    stack: contextlib.ExitStack
    folder: Path
    session: aiohttp.ClientSession
    contenders: list[Contender] = field(default_factory=list)

    def join_ours(self) -> str:
        ours = self.stack.enter_context(service(self.folder))
        thorough = self.stack.enter_context(service(self.folder, PNG_THOROUGH="true"))
        self._add(OURS, ours, _ours(self.session, ours, False))
        self._add(OURS_4, ours, _ours(self.session, ours, False, png_compression="4"))
        self._add(OURS_BASE, ours, _ours(self.session, ours, True))
        for level in ("8", "9"):
            export = _ours(self.session, thorough, False, png_compression=level)
            self._add(OURS_THOROUGH.format(level), thorough, export)
        return ""

    def join_pillow(self) -> str:
        port = free_port()
        inline = self._serve(port, sys.executable, "-m", "bench.inline", str(port), str(self.folder))
        self._add(INLINE, inline, _inline(self.session, inline, False))
        self._add(INLINE_BASE, inline, _inline(self.session, inline, True))
        return ""

    def join_sharp(self) -> str:
        tool = peers.sharp()
        for name, png in ((SHARP_9, '{"compressionLevel":9,"adaptiveFiltering":true}'), (SHARP, "{}")):
            port = free_port()
            command = (tool.path, str(HERE / "sharp.js"), str(port), str(self.folder), png)
            server = self._serve(port, *command, environment=tool.environment)
            self._add(name, server, _sharp(self.session, server))
        return tool.version

    def join_thumbor(self) -> str:
        tool = peers.thumbor()
        for name, level in ((THUMBOR_9, 9), (THUMBOR, 6)):
            port = free_port()
            options = ("-i", "127.0.0.1", "-p", str(port), "--processes", str(CORES))
            server = self._serve(port, tool.path, *options, "-c", _thumbor_config(self.folder, level))
            self._add(name, server, _thumbor(self.session, server))
        return tool.version

    def join_bare(self) -> str:
        executor = self.stack.enter_context(ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn")))
        for name, over_base in ((BARE, False), (BARE_BASE, True)):
            calls = _Bare(executor, over_base)
            self.contenders.append(Contender(name, calls.export, calls.cpu_seconds))
        return ""

    def _serve(self, port: int, *command: str, environment: dict[str, str] | None = None) -> Server:
        return self.stack.enter_context(serving(command, port, self.folder, environment))

    def _add(self, name: str, server: Server, export: Export) -> None:
        self.contenders.append(Contender(name, export, server.cpu_seconds, server))


async def measure(only: str = "") -> tuple[list[Contender], list[str]]:
    """The contenders after their rounds, and notes: the versions of peers, and which are missing."""
    pictures, missing = originals(PICTURES)
    notes = [f"missing: {line}" for line in missing]
    timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, contextlib.ExitStack() as stack:
        for picture in pictures:
            Path(scratch, f"{picture.name}.png").write_bytes(picture.data)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            line = Line(stack, Path(scratch), session)
            for join in (line.join_ours, line.join_pillow, line.join_sharp, line.join_thumbor, line.join_bare):
                try:
                    notes.append(join())
                except peers.MissingError as error:
                    notes.append(f"missing: {error}")
            contenders = [contender for contender in line.contenders if re.search(only, contender.name)]
            for contender in contenders:
                await contender.export(pictures[0], pictures[1])
            for number in range(ROUNDS):
                for contender in _rotated(contenders, number):
                    await contender.run(pictures)
                print(f"round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)
    return contenders, [note for note in notes if note]


def _rotated(contenders: Sequence[Contender], number: int) -> Iterator[Contender]:
    """Another one begins each round."""
    return itertools.islice(itertools.cycle(contenders), number, number + len(contenders))


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


def report(contenders: Sequence[Contender], notes: Sequence[str]) -> None:
    print(f"{machine()}; {'; '.join(notes)}")
    print(f"{PICTURES} pictures of {SIZE[0]} x {SIZE[1]}, {CLIENTS} clients, {ROUNDS} rounds", end="")
    by_name = {contender.name: contender for contender in contenders}
    rows = []
    for contender in contenders:
        over_base = contender.name in (OURS_BASE, INLINE_BASE, BARE_BASE)
        ours = by_name[OURS_BASE if over_base else OURS].rounds
        latencies = [latency for run in contender.rounds for latency in run.latencies]
        rates = [run.rate for run in contender.rounds]
        rows.append(
            (
                contender.name,
                f"{statistics.median(rates):.2f}",
                f"{median_ratio([run.rate for run in ours], rates):.2f}",
                f"{statistics.median(run.cpu_per_trio for run in contender.rounds):.3f}",
                f"{_cpu_ratio(ours, contender.rounds):.2f}",
                f"{statistics.median(run.kb for run in contender.rounds):.0f}",
                f"{percentile(latencies, 0.5) * 1000:.0f}",
                f"{percentile(latencies, 0.99) * 1000:.0f}",
                f"{contender.memory.pss:.0f}" if contender.memory else "",
            )
        )
    heads = ("", "trios/s", "ours is", "CPU s per trio", "ours takes", "KB per trio", "p50 ms", "p99 ms", "memory MB")
    print_table(heads, rows)


def _cpu_ratio(ours: Sequence[Round], others: Sequence[Round]) -> float:
    return median_ratio([run.cpu_per_trio for run in ours], [run.cpu_per_trio for run in others])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", metavar="REGEX", help="the contenders to run, always with this service")
    only = parser.parse_args().only
    report(*asyncio.run(measure(f"service|{only}")))


if __name__ == "__main__":
    main()
