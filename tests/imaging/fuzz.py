"""Mutated pictures against a worker under its limits: each must end as a picture or a typed refusal.

python -m tests.imaging.fuzz --seconds 600
"""

import argparse
import random
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from itertools import count, takewhile
from multiprocessing import get_context
from pathlib import Path

from service.imaging.errors import ImagingError
from service.imaging.formats import JpegEncoding
from service.imaging.frame import Frame
from service.imaging.plan import ExportJob, ExportOutcome, ExportPlan, Outcome, WorkerLimits
from service.imaging.provenance import packet
from service.workers import worker
from tests.imaging import animations, icc, pictures
from tests.imaging.pictures import GREY, GREY_ALPHA, PALETTE, RGB, RGB_ALPHA
from tests.imaging.workbench import Bench

DEADLINE_SECONDS = 60.0
XMP = packet("trainedAlgorithmicMedia")
PLAN = ExportPlan(Frame(longest=64), alpha="keep")
EVERY_FRAME = replace(PLAN, animate="keep")


def seeds() -> list[bytes]:
    frames = [pictures.image("RGBA"), pictures.image("RGBA").rotate(90)]
    return [
        pictures.png(1, GREY, transparency=b"\0\1"),
        pictures.png(4, PALETTE, transparency=b"\0\x80"),
        pictures.png(8, RGB, profile=icc.DISPLAY_P3, orientation=6),
        pictures.png(8, RGB_ALPHA),
        pictures.png(8, RGB, extra=pictures.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
        pictures.png(8, RGB_ALPHA, extra=pictures.chunk(b"cICP", bytes((9, 14, 0, 1)))),
        pictures.png(16, GREY, extra=pictures.chunk(b"cICP", bytes((12, 8, 0, 1)))),
        pictures.png(16, GREY, profile=icc.grey_profile(1.8)),
        pictures.png(16, GREY_ALPHA, profile=icc.grey_profile(2.2)),
        pictures.png(16, RGB, transparency=bytes(6)),
        pictures.png(16, RGB_ALPHA, profile=icc.PROPHOTO),
        pictures.saved(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        pictures.jpeg(orientation=5, profile=icc.ADOBE_RGB),
        pictures.jpeg("L", progressive=True),
        pictures.jpeg("CMYK"),
        pictures.jpeg(xmp=XMP, progressive=True),
        pictures.jpeg()[:-2],
        pictures.jpeg(progressive=True, restart_marker_rows=1)[:-2],
        pictures.jpeg(progressive=True, subsampling="4:4:4"),
        pictures.webp(orientation=3, profile=icc.DISPLAY_P3),
        pictures.webp("RGBA"),
        pictures.webp(xmp=XMP),
        pictures.webp("RGBA", lossless=True),
        pictures.saved(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        pictures.gif(),
        pictures.saved(frames[0], "GIF", save_all=True, append_images=frames[1:], loop=3),
        *(animations.gif(animations.random_film(seed, beyond=True, soft=False)) for seed in range(3)),
        *(animations.apng(animations.random_film(seed)) for seed in range(2)),
        animations.webp(animations.random_film(0, even=True, previous=False)),
    ]


def mutants(numbers: random.Random) -> Iterator[bytes]:
    originals = seeds()
    while True:
        data = bytearray(numbers.choice(originals))
        for _ in range(numbers.choice((1, 1, 2, 4, 16))):
            numbers.choice(_MUTATIONS)(data, numbers, originals)
        yield _checksummed(bytes(data)) if numbers.random() < 0.7 else bytes(data)


def _flip(data: bytearray, numbers: random.Random, originals: list[bytes]) -> None:
    if data:
        data[numbers.randrange(len(data))] ^= 1 << numbers.randrange(8)


def _overwrite(data: bytearray, numbers: random.Random, originals: list[bytes]) -> None:
    # Sizes and offsets are near the front; these are the boundary values of integers.
    at = numbers.randrange(min(len(data), numbers.choice((64, 1_000, 1_000_000))) or 1)
    value = numbers.choice((b"\0", b"\xff", b"\x7f", b"\x80", b"\1"))
    width = numbers.choice((1, 2, 4))
    data[at : at + width] = value * width


def _cut(data: bytearray, numbers: random.Random, originals: list[bytes]) -> None:
    del data[numbers.randrange(len(data) + 1) :]


def _remove(data: bytearray, numbers: random.Random, originals: list[bytes]) -> None:
    at = numbers.randrange(len(data) + 1)
    del data[at : at + numbers.randrange(1, 64)]


def _repeat(data: bytearray, numbers: random.Random, originals: list[bytes]) -> None:
    at = numbers.randrange(len(data) + 1)
    data[at:at] = data[at : at + numbers.randrange(1, 512)] * numbers.choice((1, 3, 50))


def _splice(data: bytearray, numbers: random.Random, originals: list[bytes]) -> None:
    other = numbers.choice(originals)
    start = numbers.randrange(len(other))
    at = numbers.randrange(len(data) + 1)
    data[at:at] = other[start : start + numbers.randrange(1, 2_000)]


_MUTATIONS: tuple[Callable[[bytearray, random.Random, list[bytes]], None], ...] = (
    _flip,
    _flip,
    _overwrite,
    _overwrite,
    _cut,
    _remove,
    _repeat,
    _splice,
)


def _checksummed(data: bytes) -> bytes:
    """A PNG with corrected checksums, so that the damage is not rejected by them alone."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    fixed, position = bytearray(data), 8
    while position + 12 <= len(fixed):
        (length,) = struct.unpack_from(">I", fixed, position)
        end = position + 8 + length
        if end + 4 > len(fixed):
            break
        fixed[end : end + 4] = zlib.crc32(fixed[position + 4 : end]).to_bytes(4)
        position = end + 4
    return bytes(fixed)


@dataclass
class Report:
    jobs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    cpu_seconds: float = 0.0
    memory_megabytes: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome, cpu_seconds: float, memory_megabytes: int) -> None:
        if isinstance(outcome, ImagingError):
            self.outcomes[outcome.code] += 1
        elif isinstance(outcome, ExportOutcome) and outcome.files:
            self.outcomes["picture"] += 1
        else:
            self.faults.append(f"job {self.jobs}: {outcome}")
        if isinstance(outcome, ImagingError) and "(" in outcome.detail:
            self.faults.append(f"job {self.jobs}: an exception that nobody expected: {outcome.detail}")
        self.jobs += 1
        self.cpu_seconds = max(self.cpu_seconds, cpu_seconds)
        self.memory_megabytes = max(self.memory_megabytes, memory_megabytes)

    def __str__(self) -> str:
        counts = ", ".join(f"{code} {number}" for code, number in self.outcomes.most_common())
        return (
            f"{self.jobs} jobs: {counts}\n"
            f"worst job: {self.cpu_seconds:.3f} s CPU; worst memory of the worker: {self.memory_megabytes} MB\n"
            f"faults: {len(self.faults)}"
        )


def measured(job: ExportJob) -> tuple[Outcome, float, int]:
    """In the worker: the outcome, its CPU seconds, and the most memory that the process held meanwhile, in MB."""
    Path("/proc/self/clear_refs").write_text("5")
    before = time.process_time()
    outcome = worker.run(job)
    cpu_seconds = time.process_time() - before
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return outcome, cpu_seconds, int(status["VmHWM"].split()[0]) // 1024


def fuzz(folder: Path, seed: int, wanted: Callable[[int], bool]) -> Report:
    """Run mutants while `wanted(number)` is true; those that killed or stalled their worker stay in `folder`."""
    bench, report = Bench(folder), Report()
    executor = _executor()
    for number, data in zip(takewhile(wanted, count()), mutants(random.Random(seed)), strict=False):
        job = bench.job(data, EVERY_FRAME if number % 2 else PLAN, encodings=(JpegEncoding(),))
        try:
            report.add(*executor.submit(measured, job).result(DEADLINE_SECONDS))
        except (BrokenProcessPool, TimeoutError) as fault:
            (folder / f"killer-{seed}-{number}").write_bytes(data)
            report.faults.append(f"job {number}: {type(fault).__name__}, kept as killer-{seed}-{number}")
            for process in executor._processes.values():
                process.kill()
            executor.shutdown()
            executor = _executor()
    executor.shutdown()
    return report


def _executor() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"), worker.start, (WorkerLimits(),))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=time.time_ns())
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    end = time.monotonic() + arguments.seconds
    report = fuzz(folder, arguments.seed, lambda number: time.monotonic() < end)
    print(f"seed {arguments.seed}, files in {folder}", report, *report.faults, sep="\n")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
