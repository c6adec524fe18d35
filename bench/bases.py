"""The cost of a large base: CPU of the service for four variations over 12 megapixels, and over 1280 x 720.

The emulator of Gemini is a process of its own, whose CPU is not counted. Rounds of both bases alternate. One decode is
the CPU to decode the large base and resize it to the size of the exports, once.
"""

import asyncio
import contextlib
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from PIL import Image

from bench.processes import Server, clean_environment, service
from bench.table import machine, median_ratio, print_table
from bench.workload import CONTENT_TYPE, form
from service.imaging.pipeline import finish
from service.imaging.plan import ExportPlan
from service.imaging.probe import probe

VARIATIONS = 4
ORDERS = 4
ROUNDS = 7
LARGE, SMALL = (4000, 3000), (1280, 720)
WANTED = 1.15


@dataclass(slots=True)
class Contender:
    """An order over one base; `cpu` has the CPU seconds of one order, for each round."""

    body: bytes
    cpu: list[float] = field(default_factory=list)

    async def run(self, session: aiohttp.ClientSession, server: Server) -> None:
        before = server.cpu_seconds()
        for _ in range(ORDERS):
            await _order(session, server, self.body)
        self.cpu.append((server.cpu_seconds() - before) / ORDERS)


async def _order(session: aiohttp.ClientSession, server: Server, body: bytes) -> None:
    payload = aiohttp.BytesPayload(body)
    async with session.post(
        f"{server.url}/api/thumbnails", data=payload, headers={"Content-Type": CONTENT_TYPE}
    ) as answer:
        variations = (await answer.json())["variations"]
    if [variation["metadata"]["composited"] for variation in variations] != [True] * VARIATIONS:
        raise SystemExit(f"not {VARIATIONS} composited variations: {variations}")


def _photograph() -> Image.Image:
    """Soft noise with some grain, which is as costly to decode as a photograph."""
    soft = Image.effect_noise((LARGE[0] // 8, LARGE[1] // 8), 90).resize(LARGE, Image.Resampling.BICUBIC)
    return Image.merge("RGB", [soft, soft.transpose(Image.Transpose.ROTATE_180), Image.effect_noise(LARGE, 12)])


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=88)
    return out.getvalue()


def _bases() -> tuple[bytes, bytes]:
    """A large base, and the same resized: the cost of the exports depends on their content, too."""
    large = _jpeg(_photograph())
    fitted, _ = finish(probe(large, LARGE[0] * LARGE[1]), ExportPlan(), SMALL)
    return large, _jpeg(fitted)


def _decode_seconds(data: bytes) -> float:
    """CPU seconds to decode a base and resize it to the size of the exports."""
    took = []
    for _ in range(ROUNDS):
        start = time.process_time()
        finish(probe(data, LARGE[0] * LARGE[1]), ExportPlan(), SMALL)
        took.append(time.process_time() - start)
    return statistics.median(took)


@contextlib.contextmanager
def _emulator() -> Iterator[str]:
    """The address of an emulator that draws without delay."""
    environment = clean_environment() | {"EMULATOR_DELAY_SECONDS": "0"}
    command = (sys.executable, "-m", "service.emulator")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        if process.stdout is None:
            raise SystemExit("the emulator has no output")
        yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        process.kill()


async def measure(reference: str) -> tuple[str, ...]:
    """A row of the table, with or without the base as a reference for Gemini."""
    large, small = _bases()
    contenders = [Contender(_body(data, reference)) for data in (large, small)]
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as scratch,
        _emulator() as address,
        service(Path(scratch), GEMINI_BASE_URL=address, LOG_LEVEL="warning") as server,
    ):
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session:
            for contender in contenders:
                await _order(session, server, contender.body)
            for number in range(ROUNDS):
                for contender in contenders[:: 1 if number % 2 else -1]:
                    await contender.run(session, server)
    one_decode = _decode_seconds(large)
    over_large, over_small = (contender.cpu for contender in contenders)
    ratio = median_ratio(over_large, [cpu + one_decode for cpu in over_small])
    seconds = (statistics.median(over_large), statistics.median(over_small), one_decode)
    return (f"reference={reference}", *(f"{each:.3f}" for each in seconds), f"{ratio:.2f}", f"{WANTED}")


def _body(base: bytes, reference: str) -> bytes:
    return form(base, script="A lighthouse at dawn", count=str(VARIATIONS), reference=reference)


def main() -> None:
    rows = [asyncio.run(measure(reference)) for reference in ("true", "false")]
    print(machine())
    heads = ("", "CPU s, 12 MP base", "1280 x 720", "one decode", "12 MP to both", "wanted, at most")
    print_table(heads, rows)


if __name__ == "__main__":
    main()
