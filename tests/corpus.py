"""Pictures that others collected against a worker under its limits, judged beside libvips.

python -m tests.corpus FOLDER
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import pyvips

from service.imaging.errors import ImagingError
from service.imaging.formats import PngEncoding, sniff
from service.imaging.frame import Frame
from service.imaging.plan import ExportOutcome, ExportPlan, Outcome, WorkerLimits
from service.workers import worker
from tests.imaging.fuzz import measured
from tests.imaging.workbench import TRIO, Bench

DEADLINE_SECONDS = 60.0
PLAN = ExportPlan(Frame(longest=1280))
# As the service encodes by default.
ENCODINGS = (PngEncoding(), *TRIO[1:])


@dataclass
class Tally:
    """What became of the files; `valid` are those that libvips decodes without an error."""

    outcomes: Counter[str] = field(default_factory=Counter)
    valid: int = 0
    valid_taken: int = 0
    cpu_seconds: tuple[float, str] = (0.0, "")
    memory_megabytes: tuple[int, str] = (0, "")
    refused_valid: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, name: str, outcome: Outcome, valid: bool) -> None:
        taken = isinstance(outcome, ExportOutcome) and len(outcome.files) == len(ENCODINGS)
        self.outcomes["picture" if taken else getattr(outcome, "code", "no export")] += 1
        self.valid += valid
        self.valid_taken += valid and taken
        if isinstance(outcome, ImagingError):
            if valid:
                self.refused_valid.append(f"{name}: {outcome.code}: {outcome.detail}")
            if "(" in outcome.detail:
                self.faults.append(f"{name}: an exception that nobody expected: {outcome.detail}")
        elif not taken:
            self.faults.append(f"{name}: {outcome}")

    def cost(self, name: str, cpu_seconds: float, memory_megabytes: int) -> None:
        self.cpu_seconds = max(self.cpu_seconds, (cpu_seconds, name))
        self.memory_megabytes = max(self.memory_megabytes, (memory_megabytes, name))

    def lines(self) -> Iterator[str]:
        yield f"{self.outcomes.total()} files: " + ", ".join(f"{code} {n}" for code, n in self.outcomes.most_common())
        share = 100 * self.valid_taken / max(1, self.valid)
        yield f"valid PNG, JPEG and WebP accepted: {self.valid_taken} of {self.valid} ({share:.2f} %)"
        yield f"worst CPU: {self.cpu_seconds[0]:.2f} s, {self.cpu_seconds[1]}"
        yield f"worst memory: {self.memory_megabytes[0]} MB, {self.memory_megabytes[1]}"
        yield from (f"refused, though libvips reads it: {line}" for line in self.refused_valid)
        yield from (f"fault: {line}" for line in self.faults)


def valid(path: Path) -> bool:
    """Whether libvips, a decoder of its own, reads the whole picture as PNG, JPEG or WebP without an error."""
    if sniff(path.read_bytes()) is None:
        return False
    try:
        pyvips.Image.new_from_file(str(path), access="sequential", fail_on="error").avg()
    except pyvips.Error:
        return False
    return True


def run(folder: Path, tally: Tally) -> None:
    with tempfile.TemporaryDirectory(prefix="corpus-") as made:
        bench, executor, judge = Bench(Path(made)), _executor(), _judge()
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = str(path.relative_to(folder))
            try:
                good = judge.submit(valid, path).result(DEADLINE_SECONDS)
            except (BrokenProcessPool, TimeoutError):
                good, judge = False, _restarted(judge, _judge())
            try:
                job = bench.job(path.read_bytes(), PLAN, encodings=ENCODINGS)
                outcome, cpu_seconds, memory_megabytes = executor.submit(measured, job).result(DEADLINE_SECONDS)
            except (BrokenProcessPool, TimeoutError) as fault:
                tally.faults.append(f"{name}: {type(fault).__name__}")
                executor = _restarted(executor, _executor())
            else:
                tally.add(name, outcome, good)
                tally.cost(name, cpu_seconds, memory_megabytes)
        executor.shutdown()
        judge.shutdown()


def _executor() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"), worker.start, (WorkerLimits(),))


def _judge() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"))


def _restarted(lost: ProcessPoolExecutor, fresh: ProcessPoolExecutor) -> ProcessPoolExecutor:
    for process in (lost._processes or {}).values():
        process.kill()
    lost.shutdown()
    return fresh


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    tally = Tally()
    run(parser.parse_args().folder, tally)
    print(*tally.lines(), sep="\n")
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
