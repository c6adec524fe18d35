"""The scheduler of sweeps, with a wall clock that can be set."""

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import pytest
from apscheduler.schedulers import base

from service import scheduler
from service.metrics import Metrics
from service.retention import sweep_area
from service.scheduler import Clocks, Sweeper, SweepEvents
from service.settings import Settings
from service.store.layout import AREAS, Area
from service.store.sweeping import Sweep
from tests.conftest import MakeSettings
from tests.helpers import make_old, until

# In minutes: 1.2 seconds.
INTERVAL = 0.02
HOUR = 3600.0


@dataclass
class Wall:
    """A wall clock that can be set, and that APScheduler reads too."""

    step: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.step


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    wall = Wall()

    class Stepped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # APScheduler wants no subclass
            return datetime.fromtimestamp(wall(), tz)

    monkeypatch.setattr(base, "datetime", Stepped)
    return wall


@dataclass
class Ticking:
    sweeper: Sweeper
    metrics: Metrics
    sweeps: int = 0

    async def more(self, count: int = 1) -> None:
        wanted = self.sweeps + count
        await until(lambda: self.sweeps >= wanted, 60)

    def metric(self, name: str) -> float:
        [line] = [line for line in self.metrics.text().decode().splitlines() if line.startswith(f"{name} ")]
        return float(line.split()[1])


@asynccontextmanager
async def ticking(settings: Settings, clocks: Clocks | None = None) -> AsyncIterator[Ticking]:
    metrics = Metrics()

    def ended(wall_clock: float) -> None:
        metrics.sweep_ended(wall_clock)
        it.sweeps += 1

    it = Ticking(Sweeper(settings, SweepEvents(metrics.swept, ended), clocks), metrics)
    it.sweeper.start()
    try:
        yield it
    finally:
        await it.sweeper.close()


def files(settings: Settings, area: str = "temp") -> int:
    return len(list(Path(settings.storage_dir, area).iterdir()))


def fill(settings: Settings, old: int, young: int, area: str = "temp") -> None:
    for number in range(old):
        make_old(settings.storage_dir / area / f"old-{number}", 2)
    for number in range(young):
        make_old(settings.storage_dir / area / f"young-{number}", 0)


async def test_closing_waits_for_a_running_sweep_and_logs_no_fault(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def slow(*args: object, **options: object) -> Sweep:
        begun.set()
        go_on.wait()
        ended.set()
        return Sweep()

    monkeypatch.setattr(scheduler, "sweep_area", slow)
    sweeper = Sweeper(make_settings())
    sweeper.start()
    await until(begun.is_set)
    closing = asyncio.create_task(sweeper.close())
    await asyncio.sleep(0)
    go_on.set()
    await closing
    assert ended.is_set()
    await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_closing_stops_a_long_sweep_after_its_current_file(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings()
    fill(settings, old=5, young=0)
    begun, go_on = threading.Event(), threading.Event()
    remove = os.unlink

    def slow(name: str, **options: int) -> None:
        begun.set()
        go_on.wait()
        remove(name, **options)

    monkeypatch.setattr(os, "unlink", slow)
    async with ticking(settings):
        await until(begun.is_set)
        asyncio.get_running_loop().call_later(0.1, go_on.set)
    assert files(settings) == 4


async def test_a_sweep_that_hangs_on_the_disk_blocks_neither_closing_nor_a_disk_thread(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hanging(*args: object, **options: object) -> Sweep:
        begun.set()
        go_on.wait()
        return Sweep()

    monkeypatch.setattr(scheduler, "sweep_area", hanging)
    monkeypatch.setattr(scheduler, "CLOSE_SECONDS", 0.1)
    async with ticking(make_settings()):
        await until(begun.is_set)
        [thread] = [thread for thread in threading.enumerate() if thread.name == "sweep"]
    assert thread.daemon
    assert thread.is_alive()
    assert "hangs on the disk" in caplog.text
    go_on.set()
    await until(lambda: not thread.is_alive())


async def test_the_end_of_a_sweep_is_reported(make_settings: MakeSettings) -> None:
    begun = time.time()
    async with ticking(make_settings()) as it:
        assert it.metric("image_export_last_sweep_timestamp_seconds") == 0
        await it.more()
        assert begun <= it.metric("image_export_last_sweep_timestamp_seconds") <= time.time()
        assert it.sweeper.state() == "ok"
    assert it.sweeper.state() == "not running"


@pytest.mark.parametrize("step", [-24 * HOUR, -61.0, 61.0, 24 * HOUR, 60 * 365 * 24 * HOUR])
async def test_the_interval_outlives_a_step_of_the_wall_clock(
    make_settings: MakeSettings, wall: Wall, step: float
) -> None:
    async with ticking(make_settings(cleanup_interval_minutes=INTERVAL), Clocks(wall)) as it:
        await it.more()
        wall.step = step
        await it.more(2)
        assert it.sweeper.state() == "ok"
        wall.step = 0
        await it.more(2)


async def test_a_step_forward_brings_no_sweep_before_its_time(
    make_settings: MakeSettings, wall: Wall, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scheduler, "WATCH_SECONDS", 1.0)
    async with ticking(make_settings(cleanup_interval_minutes=60), Clocks(wall)) as it:
        await it.more()
        wall.step = 24 * HOUR
        await until(lambda: "the wall clock stepped by +86400 seconds" in caplog.text)
        await asyncio.sleep(0.2)
        assert it.sweeps == 1


async def test_a_sweep_at_start_that_would_remove_most_files_is_put_off_by_one_interval(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(cleanup_interval_minutes=INTERVAL)
    fill(settings, old=6, young=5)
    fill(settings, old=6, young=6, area="uploads")
    fill(settings, old=9, young=0, area="output")
    async with ticking(settings) as it:
        await it.more()
        assert [files(settings, area) for area in ("temp", "uploads", "output")] == [11, 6, 9]
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert "temp/ is put off by one interval: it would remove 6 of 11 files" in warnings[0]
        await it.more()
        assert files(settings) == 5


async def test_few_files_are_swept_at_start(make_settings: MakeSettings) -> None:
    settings = make_settings()
    fill(settings, old=9, young=0)
    async with ticking(settings) as it:
        await it.more()
        assert files(settings) == 0


async def test_a_sweep_after_a_large_step_that_would_remove_most_files_is_put_off(
    make_settings: MakeSettings, wall: Wall, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(cleanup_interval_minutes=INTERVAL)
    async with ticking(settings, Clocks(wall)) as it:
        await it.more()
        fill(settings, old=11, young=0)
        wall.step = 1.1 * HOUR
        await it.more()
        assert files(settings) == 11
        assert "put off" in caplog.text
        await it.more()
        assert files(settings) == 0


async def test_a_large_step_amid_a_sweep_puts_off_the_areas_that_follow(
    make_settings: MakeSettings, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step_then_sweep(settings: Settings, area: Area, **options: Any) -> Sweep:
        if area == AREAS[0]:
            wall.step += 2 * HOUR
        return sweep_area(settings, area, **options)

    settings = make_settings(cleanup_interval_minutes=INTERVAL)
    async with ticking(settings, Clocks(wall)) as it:
        await it.more()
        fill(settings, old=11, young=0, area=AREAS[0])
        fill(settings, old=11, young=0, area=AREAS[-1])
        with monkeypatch.context() as patch:
            patch.setattr(scheduler, "sweep_area", step_then_sweep)
            await it.more()
        assert [files(settings, area) for area in (AREAS[0], AREAS[-1])] == [0, 11]
        fill(settings, old=11, young=0, area=AREAS[0])
        await it.more()
        # The first area was swept before the step, so the step is doubted there now.
        assert [files(settings, area) for area in (AREAS[0], AREAS[-1])] == [11, 0]
        await it.more()
        assert files(settings, AREAS[0]) == 0


async def test_a_first_sweep_that_fails_leaves_the_ages_in_doubt(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    faults = iter([RuntimeError("can't start new thread")])

    def failing_once(settings: Settings, area: Area, **options: Any) -> Sweep:
        for fault in faults:
            raise fault
        return sweep_area(settings, area, **options)

    monkeypatch.setattr(scheduler, "sweep_area", failing_once)
    settings = make_settings(cleanup_interval_minutes=INTERVAL)
    fill(settings, old=11, young=0)
    async with ticking(settings) as it:
        await it.more()
        assert files(settings) == 11
        assert "put off" in caplog.text


async def test_a_small_step_puts_nothing_off(make_settings: MakeSettings, wall: Wall) -> None:
    settings = make_settings(cleanup_interval_minutes=INTERVAL)
    async with ticking(settings, Clocks(wall)) as it:
        await it.more()
        fill(settings, old=11, young=0)
        wall.step = 0.9 * HOUR
        await it.more()
        assert files(settings) == 0


async def test_a_sweep_on_request_is_never_put_off(make_settings: MakeSettings) -> None:
    settings = make_settings()
    fill(settings, old=11, young=0)
    assert await asyncio.to_thread(lambda: sweep_area(settings, "temp").files) == 11


async def test_three_missed_intervals_are_reported(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    late = 0.0

    def hanging(*args: object, **options: object) -> Sweep:
        go_on.wait()
        return Sweep()

    monkeypatch.setattr(scheduler, "sweep_area", hanging)
    clocks = Clocks(monotonic=lambda: time.monotonic() + late)
    async with ticking(make_settings(cleanup_interval_minutes=10), clocks) as it:
        late = 29 * 60
        assert it.sweeper.state() == "ok"
        late = 31 * 60
        assert it.sweeper.state() == "no sweep has ended for 3 intervals"
        go_on.set()
        await it.more()
        assert it.sweeper.state() == "ok"


async def test_a_sweep_that_fails_does_not_count_and_the_next_one_runs(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = iter([RuntimeError("can't start new thread")])

    def failing(*args: object, **options: object) -> Sweep:
        for fault in faults:
            raise fault
        return Sweep()

    monkeypatch.setattr(scheduler, "sweep_area", failing)
    async with ticking(make_settings(cleanup_interval_minutes=INTERVAL)) as it:
        await it.more()
