"""Time limits of a job: CPU time of its worker, and four times as much wall time."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from service.imaging.errors import TooCostly
from service.imaging.plan import InspectJob, Picture
from service.workers import slot as slot_module
from service.workers.slot import MIN_CHECK_SECONDS, WALL_FACTOR, _TimeLimit
from tests.helpers import until
from tests.workers.pools import Pools


def spin() -> None:
    while True:
        pass


class Spinning(InspectJob):
    """A job that computes for ever while its worker unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return spin, ()


async def test_a_job_that_computes_for_too_long_is_killed(
    pools: Pools, picture: InspectJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine the wall limit must not be reached first.
    monkeypatch.setattr(slot_module, "WALL_FACTOR", 100)
    pool = pools(deadline=0.3)
    outcome = await pool.run(Spinning("any"), "a")
    assert isinstance(outcome, TooCostly)
    assert "0.3 seconds of CPU" in outcome.detail
    assert isinstance(await pool.run(picture, "b"), Picture)
    assert pools.events == ["late"]


async def test_a_job_that_only_waits_has_four_times_as_long(
    pools: Pools, endless: InspectJob, picture: InspectJob
) -> None:
    pool = pools(deadline=1)
    await pool.start()
    job = asyncio.create_task(pool.run(endless, "a"))
    await asyncio.sleep(2)
    data = Path(picture.source).read_bytes()
    await asyncio.to_thread(Path(endless.source).write_bytes, data)
    assert isinstance(await job, Picture)
    assert pools.events == []


async def test_the_cpu_of_jobs_before_does_not_count(pools: Pools, picture: InspectJob) -> None:
    pool = pools(deadline=0.3)
    await pool.start()
    [slot] = pool._slots
    number = 0
    while slot.cpu_seconds() < 0.6:
        assert isinstance(await pool.run(picture, str(number)), Picture)
        number += 1
    assert pools.events == []


async def test_a_stopped_worker_is_killed_at_the_wall_limit(pools: Pools, picture: InspectJob) -> None:
    pool = pools(deadline=0.2)
    await pool.start()
    before = pool.pids
    os.kill(before[0], signal.SIGSTOP)
    outcome = await pool.run(picture, "a")
    assert isinstance(outcome, TooCostly)
    assert f"{0.2 * WALL_FACTOR:g} seconds by the clock" in outcome.detail
    await until(lambda: bool(pool.pids) and pool.pids != before)
    assert isinstance(await pool.run(picture, "a"), Picture)


async def test_the_clock_is_not_read_without_pause_shortly_before_the_limit() -> None:
    limit = _TimeLimit(iter([0.0, 1 - 1e-9]).__next__, 1)
    assert limit.remaining() == MIN_CHECK_SECONDS
