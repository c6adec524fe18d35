"""The service under load: a thousand requests at once, /healthz while every core encodes, memory over many exports."""

import asyncio
import contextlib
import http.client
import multiprocessing
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from PIL import Image

from bench.against import argument_parser, compare
from bench.crowd import arrivals, post_at_once
from bench.processes import HERE, Checkout, Memory, Server, gemini, service
from bench.table import machine, percentile, print_table
from bench.workload import CONTENT_TYPE, SIZE, form, originals, png_bytes

WATCHED = ("-m", "bench.watched")
CORES = len(os.sched_getaffinity(0))
TIMEOUT = aiohttp.ClientTimeout(total=300)

WAITING = 1000
DELAY_SECONDS = 5
# The emulator draws this many pictures of one script, then repeats them: drawn beforehand, they take no CPU later.
DRAWINGS = 16

HEALTH_SECONDS = 15
HEALTH_PAUSE_SECONDS = 0.01

FEW, MANY = 500, 5000
SMALL = (96, 54)
SMALL_CLIENTS = 16


@dataclass(frozen=True, slots=True)
class Row:
    """A measurement as it is printed; with a `value` it is compared with that of another checkout."""

    name: str
    shown: str
    wanted: str = ""
    value: float | None = None


async def waiting(folder: Path, checkout: Checkout) -> list[Row]:
    """Requests that all wait for Gemini at once."""
    settings = {
        "GEMINI_API_KEY": "",
        "GEMINI_BASE_URL": "",
        "EMULATOR_DELAY_SECONDS": str(DELAY_SECONDS),
        "GEMINI_CONCURRENCY": str(WAITING),
        "MAX_REQUESTS": str(WAITING),
    }
    body = form(None, script="A lighthouse at dawn", width="640", height="360")
    with service(folder, checkout, **settings) as server:
        async with _session() as session:
            await asyncio.gather(*(_posted(session, server, "thumbnails", body) for _ in range(DRAWINGS)))
            before = server.own_rss_kb()
            crowd = [asyncio.create_task(_posted(session, server, "thumbnails", body)) for _ in range(WAITING)]
            crest, peak = await _watch(server, crowd)
            statuses = [task.result() for task in crowd]
            inside = await _peak_at_emulator(session, server)
    each, highest = (crest - before) / WAITING, (peak - before) / WAITING
    asked = f"of {WAITING} requests at once, with a Gemini that takes {DELAY_SECONDS} s, succeed"
    most = "the same at the highest point, most with a worker to wait for"
    return [
        Row(asked, str(statuses.count(200)), "all"),
        Row("of them with Gemini at one moment", str(inside)),
        Row("memory for each that waits for Gemini", f"{each:.0f} KiB", "200 kB", each),
        Row(most, f"{highest:.0f} KiB", value=highest),
    ]


async def _watch(server: Server, crowd: Sequence[asyncio.Task[int]]) -> tuple[int, int]:
    """The highest memory in KiB before the first answer, and until the last one."""
    crest = peak = 0
    while not all(task.done() for task in crowd):
        peak = max(peak, server.own_rss_kb())
        if not any(task.done() for task in crowd):
            crest = peak
        await asyncio.sleep(0.05)
    return crest, peak


async def _peak_at_emulator(session: aiohttp.ClientSession, server: Server) -> int:
    match = re.search(r"emulator on (http://127\.0\.0\.1:\d+)", server.log.read_text())
    if match is None:
        raise SystemExit(f"the log does not say where the emulator is: {server.log.read_text()[-2000:]}")
    async with session.get(f"{match[1]}/emulator/stats") as answer:
        peak: int = (await answer.json())["peak"]
        return peak


async def leaving(folder: Path, checkout: Checkout) -> list[Row]:
    """How soon calls leave when many requests come at once, and /healthz meanwhile."""
    settings = {"GEMINI_CONCURRENCY": str(WAITING), "MAX_REQUESTS": str(WAITING), "LOG_LEVEL": "warning"}
    body = form(None, script="A lighthouse at dawn", width="640", height="360", formats="jpeg")
    loop = asyncio.get_running_loop()
    with (
        gemini(folder, DELAY_SECONDS) as pictures,
        service(folder, checkout, GEMINI_BASE_URL=pictures.url, **settings) as server,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as prober,
    ):
        async with _session() as session:
            await _posted(session, server, "thumbnails", body)
            await arrivals(session, pictures)
            probing = loop.run_in_executor(prober, _probe, server.port, DELAY_SECONDS)
            complete, statuses = await post_at_once(server, body, WAITING)
            delays = [arrival - complete for arrival in await arrivals(session, pictures)]
            took = await probing
    first, half, last = min(delays) * 1000, statistics.median(delays) * 1000, max(delays) * 1000
    health = percentile(took, 0.99) * 1000
    many = f"{WAITING} requests at once"
    return [
        Row(f"of {many}, with a Gemini that draws nothing, succeed", str(statuses.count(200)), "all"),
        Row("the first call leaves after the last byte of all bodies, ms", f"{first:.0f}", "1000", first),
        Row("half of the calls have left after it, ms", f"{half:.0f}", value=half),
        Row("the last call leaves after it, ms", f"{last:.0f}", value=last),
        Row(f"/healthz p50 / p99 with {many}", _milliseconds(took)),
        Row(f"/healthz p99 with {many}, ms", f"{health:.1f}", value=health),
    ]


async def healthz(folder: Path, checkout: Checkout) -> list[Row]:
    """The latency of /healthz for a client in another process: idle, then with every worker busy."""
    pictures, _ = originals(4)
    bodies = [form(picture.data, width=str(SIZE[0]), height=str(SIZE[1])) for picture in pictures]
    loop = asyncio.get_running_loop()
    with (
        service(folder, checkout) as server,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as prober,
    ):
        idle = await loop.run_in_executor(prober, _probe, server.port, HEALTH_SECONDS / 3)
        async with _session() as session, _busy(session, server, bodies):
            await asyncio.sleep(1)
            cpu = server.cpu_seconds()
            busy = await loop.run_in_executor(prober, _probe, server.port, HEALTH_SECONDS)
            used = (server.cpu_seconds() - cpu) / HEALTH_SECONDS / CORES
    median = statistics.median(busy) * 1000
    return [
        Row("/healthz p50 / p99, idle", _milliseconds(idle)),
        Row(f"/healthz p50 / p99, exporting with {used:.0%} of every core", _milliseconds(busy), "p99 10 ms"),
        Row("/healthz p50 while exporting, ms", f"{median:.1f}", value=median),
    ]


@contextlib.asynccontextmanager
async def _busy(session: aiohttp.ClientSession, server: Server, bodies: Sequence[bytes]) -> AsyncIterator[None]:
    """Keep the service exporting, with two clients for each core."""

    async def client(number: int) -> None:
        while True:
            await _posted(session, server, "exports", bodies[number % len(bodies)])

    clients = [asyncio.create_task(client(number)) for number in range(2 * CORES)]
    try:
        yield
    finally:
        for one in clients:
            one.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


def _probe(port: int, seconds: float) -> list[float]:
    """The latencies of sequential requests on one connection, in seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    took: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        took.append(time.perf_counter() - start)
        time.sleep(HEALTH_PAUSE_SECONDS)
    return took


def _milliseconds(took: Sequence[float]) -> str:
    return f"{statistics.median(took) * 1000:.1f} / {percentile(took, 0.99) * 1000:.1f} ms"


@dataclass(frozen=True, slots=True)
class Snapshot:
    memory: Memory
    descriptors: int
    threads: int
    tasks: int


async def endurance(folder: Path, checkout: Checkout) -> list[Row]:
    """Memory, descriptors, threads and tasks after many exports, of small pictures for speed."""
    body = form(png_bytes(Image.linear_gradient("L").convert("RGB").resize(SMALL)), width="64", height="36")
    with service(folder, checkout, WATCHED) as server:
        async with _session() as session:
            start, cpu = time.perf_counter(), server.cpu_seconds()
            await _export_many(session, server, body, FEW)
            few = await _snapshot(server)
            await _export_many(session, server, body, MANY - FEW)
            many = await _snapshot(server)
            rate = MANY / (time.perf_counter() - start)
            each = (server.cpu_seconds() - cpu) / MANY * 1000
    growth = many.memory.pss / few.memory.pss
    grown = f"{growth:.2f} ({few.memory.pss:.0f} -> {many.memory.pss:.0f} MB)"
    small = f"of pictures of {SMALL[0]} x {SMALL[1]}"
    return [
        Row(f"memory after {MANY} exports against after {FEW}", grown, "1.10", growth),
        Row("open descriptors", f"{few.descriptors} -> {many.descriptors}", "no more"),
        Row("threads", f"{few.threads} -> {many.threads}"),
        Row("asyncio tasks", f"{few.tasks} -> {many.tasks}", "no more"),
        Row(f"exports {small} each second", f"{rate:.0f}", value=rate),
        Row(f"CPU ms for each export {small}", f"{each:.1f}", value=each),
    ]


async def _export_many(session: aiohttp.ClientSession, server: Server, body: bytes, count: int) -> None:
    left = iter(range(count))

    async def client() -> None:
        for _ in left:
            await _posted(session, server, "exports", body)

    await asyncio.gather(*(client() for _ in range(SMALL_CLIENTS)))


async def _snapshot(server: Server) -> Snapshot:
    await asyncio.sleep(1)
    os.kill(server.pid, signal.SIGUSR1)
    await asyncio.sleep(0.5)
    tasks = int(re.findall(r"^tasks (\d+)$", server.log.read_text(), re.MULTILINE)[-1])
    return Snapshot(server.memory(), server.descriptors(), server.threads(), tasks)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=TIMEOUT)


async def _posted(session: aiohttp.ClientSession, server: Server, route: str, body: bytes) -> int:
    headers = {"Content-Type": CONTENT_TYPE}
    async with session.post(f"{server.url}/api/{route}", data=aiohttp.BytesPayload(body), headers=headers) as answer:
        await answer.read()
        return answer.status


PARTS = {part.__name__: part for part in (waiting, leaving, healthz, endurance)}


async def measure(checkout: Checkout = HERE, names: Iterable[str] = PARTS) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        rows: list[Row] = []
        for name in names:
            rows += await PARTS[name](Path(scratch), checkout)
            print(f"{name} done", file=sys.stderr, flush=True)
    return rows


async def _figures(checkout: Checkout, names: Iterable[str]) -> Mapping[str, float]:
    return {row.name: row.value for row in await measure(checkout, names) if row.value is not None}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="the parts to measure (all)")
    options = parser.parse_args()
    if there := options.against:
        asyncio.run(
            compare(lambda: _figures(HERE, options.only), lambda: _figures(there, options.only), options.rounds)
        )
        return
    rows = asyncio.run(measure(HERE, options.only))
    print(machine())
    print_table(("", "measured", "wanted, at most"), [(row.name, row.shown, row.wanted) for row in rows])


if __name__ == "__main__":
    main()
