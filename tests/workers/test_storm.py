"""Stress test: hundreds of jobs while workers are killed from outside, hang, run out of memory and crash."""

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from service.imaging.errors import TooCostly
from service.imaging.formats import JpegEncoding
from service.imaging.frame import Frame
from service.imaging.plan import ExportJob, ExportOutcome, ExportPlan, InspectJob, Job, Outcome, WorkerLimits
from service.workers.pool import WorkerPool
from service.workers.strikes import POISON_DEATHS
from tests.workers.pools import workers

WORKERS = 3
DEADLINE_SECONDS = 2.0
LIMITS = WorkerLimits(memory_bytes=272 * 1024 * 1024, cpu_seconds=DEADLINE_SECONDS)
# How many jobs are good, need too much memory, crash, and never end.
STORM, SQUALL = (300, 12, 4, 3), (24, 1, 1, 0)
# Workers are killed so rarely that no good job can lose three fresh ones.
JOBS_BETWEEN_KILLS = 8

# A slow job may be hit by three kills, too.
REASONS = {
    "hungry": ("more memory", "killed 3 workers"),
    "crashing": ("killed 3 workers",),
    "endless": ("longer than", "killed 3 workers"),
}


class Crash(InspectJob):
    """A job that crashes its worker while it is unpickled, as a bug in a decoder would."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


@dataclass
class Storm:
    pool: WorkerPool
    folder: Path
    answered: int = 0
    kills: int = 0

    def good(self, number: int) -> ExportJob:
        return self._export(f"good-{number}", Frame(longest=64))

    def hungry(self, number: int) -> ExportJob:
        return self._export(f"hungry-{number}", Frame(8192, 8192))

    def crashing(self, number: int) -> InspectJob:
        return Crash(f"crashing-{number}")

    def endless(self, number: int) -> InspectJob:
        pipe = self.folder / f"endless-{number}"
        os.mkfifo(pipe)
        return InspectJob(str(pipe))

    def _export(self, name: str, frame: Frame) -> ExportJob:
        target = self.folder / f"{name}.jpg"
        target.touch()
        return ExportJob(str(self.folder / "picture.png"), None, ExportPlan(frame), ((JpegEncoding(), str(target)),))

    async def answer(self, name: str, job: Job) -> Outcome:
        outcome = await self.pool.run(job, digest=name)
        self.answered += 1
        if self.answered % JOBS_BETWEEN_KILLS == 0 and self.pool.pids:
            self.kills += 1
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pool.pids[self.kills % len(self.pool.pids)], signal.SIGKILL)
        return outcome


@pytest.mark.parametrize("counts", [SQUALL, pytest.param(STORM, marks=pytest.mark.slow)], ids=["squall", "storm"])
async def test_every_good_job_is_answered_and_every_bad_one_is_refused(
    tmp_path: Path, counts: tuple[int, int, int, int]
) -> None:
    Image.effect_noise((320, 180), 60).convert("RGB").save(tmp_path / "picture.png")
    others = workers()
    events: Counter[str] = Counter()
    pool = WorkerPool(WORKERS, LIMITS, report=lambda event: events.update([event]))
    storm = Storm(pool, tmp_path)
    makers: tuple[Callable[[int], Job], ...] = (storm.good, storm.hungry, storm.crashing, storm.endless)
    jobs: list[tuple[str, Job]] = [
        (f"{make.__name__}-{number}", make(number))
        for make, count in zip(makers, counts, strict=True)
        for number in range(count)
    ]
    random.Random(7).shuffle(jobs)

    outcomes = dict(
        zip(
            (name for name, _ in jobs),
            await asyncio.gather(*(storm.answer(name, job) for name, job in jobs)),
            strict=True,
        )
    )
    assert (pool.busy, pool.waiting) == (0, 0)
    await pool.close()

    for name, outcome in outcomes.items():
        if name.startswith("good"):
            assert isinstance(outcome, ExportOutcome), (name, outcome)
            with Image.open(tmp_path / f"{name}.jpg") as made:
                made.load()
                assert made.size == (64, 36)
        else:
            assert isinstance(outcome, TooCostly), (name, outcome)
            assert any(reason in outcome.detail for reason in REASONS[name.partition("-")[0]]), (name, outcome)
    _, _, crashing, _ = counts
    assert events["poisoned"] >= crashing
    assert events["died"] >= crashing * POISON_DEATHS
    assert workers() <= others
    print(f"\n{len(jobs)} jobs, {storm.kills} workers killed from outside: {dict(events)}")
