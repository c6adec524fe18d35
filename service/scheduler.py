"""The clock of the sweep: at start and every CLEANUP_INTERVAL_MINUTES of monotonic time, never two at once."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger

from service.metrics import Metrics
from service.retention import sweep_area
from service.settings import Settings
from service.store.layout import AREAS, Area
from service.store.sweeping import Sweep

log = logging.getLogger(__name__)

T = TypeVar("T")

# How often the two clocks are compared, how far they may part before the next run is set again, and what step of the
# wall clock makes ages doubtful.
WATCH_SECONDS = 30.0
PARTED_SECONDS = 60.0
JUMP_SECONDS = 3600.0
# With doubtful ages a sweep of more than half of at least so many files is put off.
FEW_FILES = 10
MISSED_INTERVALS = 3
# A sweep looks at its stop flag before every file, so only a disk that hangs takes longer.
CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Clocks:
    """The wall clock, which gives files their age and may be set, and the monotonic clock, which may not."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic

    def gap(self) -> float:
        """Constant, unless the wall clock is set or the machine sleeps."""
        return self.wall() - self.monotonic()


class Sweeper:
    """Sweeps all four areas, then calls `swept`.

    APScheduler goes by the wall clock: after a step back it would run nothing for as long as the step. So each run is
    scheduled alone, by the monotonic clock, and scheduled again when the two clocks have parted.
    Its `shutdown` does not wait for a running job, so `close` does.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        swept: Callable[[], None] = lambda: None,
        clocks: Clocks | None = None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._swept = swept
        self._clocks = clocks or Clocks()
        self._interval = 60 * settings.cleanup_interval_minutes
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._stopping = threading.Event()
        self._running: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._ended = self._due = self._clocks.monotonic()
        self._scheduled_gap = self._trusted_gap = self._clocks.gap()
        # Whether the wall clock may be wrong: nobody knows at start.
        self._doubtful = True

    def state(self) -> str:
        """`ok`, or why no files are swept."""
        if not self._scheduler.running or self._watch is None or self._watch.done():
            return "not running"
        if self._clocks.monotonic() - self._ended > MISSED_INTERVALS * self._interval:
            return f"no sweep has ended for {MISSED_INTERVALS} intervals"
        return "ok"

    def start(self) -> None:
        self._ended = self._due = self._clocks.monotonic()
        self._scheduler.start()
        self._schedule()
        self._watch = asyncio.create_task(self._watch_clocks())

    def _schedule(self) -> None:
        """Have the next run at `_due`, whatever the wall clock says then."""
        self._scheduled_gap = self._clocks.gap()
        self._scheduler.add_job(
            self._tick,
            DateTrigger(datetime.fromtimestamp(self._due + self._scheduled_gap, UTC), timezone=UTC),
            id="sweep",
            replace_existing=True,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
        )

    async def _watch_clocks(self) -> None:
        while True:
            await asyncio.sleep(max(1.0, min(WATCH_SECONDS, self._interval)))
            step = self._clocks.gap() - self._scheduled_gap
            sweeping = self._running is not None and not self._running.done()
            if abs(step) > PARTED_SECONDS and not sweeping:
                log.warning("the wall clock went %+.0f seconds: the next sweep is scheduled again", step)
                self._schedule()

    async def _tick(self) -> None:
        self._running = asyncio.create_task(self._sweep_all())
        # Ending the scheduler cancels its jobs, which it would log as faults; `close` waits for the sweep itself.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(self._running)

    async def _sweep_all(self) -> None:
        doubtful = self._ages_are_doubtful()
        try:
            for area in AREAS:
                if not (doubtful and await self._put_off(area)):
                    self._count(area, await self._sweep(area))
            self._end()
        finally:
            self._due = self._clocks.monotonic() + self._interval
            if not self._stopping.is_set():
                self._schedule()

    def _ages_are_doubtful(self) -> bool:
        """Whether this is the first sweep, or the wall clock was stepped since one."""
        gap = self._clocks.gap()
        doubtful = self._doubtful or abs(gap - self._trusted_gap) > JUMP_SECONDS
        self._doubtful = False
        if doubtful:
            self._trusted_gap = gap
        return doubtful

    async def _put_off(self, area: Area) -> bool:
        """Leave an area to the next run if this one would remove most of it: the wall clock may be wrong."""
        would = await self._sweep(area, dry_run=True)
        if would.seen < FEW_FILES or 2 * would.files <= would.seen:
            return False
        log.warning(
            "the sweep of %s/ is put off by one interval: it would remove %d of %d files, and the clock may be wrong",
            area, would.files, would.seen,
        )  # fmt: skip
        return True

    async def _sweep(self, area: Area, *, dry_run: bool = False) -> Sweep:
        stopped = self._stopping.is_set
        return await _in_daemon_thread(partial(sweep_area, self._settings, area, dry_run=dry_run, stopped=stopped))

    def _count(self, area: Area, done: Sweep) -> None:
        self._metrics.swept.labels(area).inc(done.files)
        self._metrics.sweep_errors.inc(done.failed)
        if done.files:
            log.info("swept %d files (%d bytes) from %s/", done.files, done.bytes, area)

    def _end(self) -> None:
        if not self._stopping.is_set():
            self._ended = self._clocks.monotonic()
            self._metrics.last_sweep.set(self._clocks.wall())
            self._swept()

    async def close(self) -> None:
        """End the scheduler, and a running sweep after the file that it is at."""
        self._stopping.set()
        self._scheduler.shutdown(wait=False)
        if self._watch:
            self._watch.cancel()
        if self._running:
            _, hanging = await asyncio.wait([self._running], timeout=CLOSE_SECONDS)
            if hanging:
                log.warning("the sweep hangs on the disk and is left behind")


async def _in_daemon_thread(work: Callable[[], T]) -> T:
    """As `asyncio.to_thread`, but in a thread that takes no place of another and that no exit waits for."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="sweep", daemon=True).start()
    return await asyncio.wrap_future(future)
