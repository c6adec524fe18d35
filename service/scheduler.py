"""Schedules sweeps: at start and every CLEANUP_INTERVAL_MINUTES of monotonic time, never two at once."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger

from service.errors import ServiceError
from service.retention import PROTECTED_AREAS, sweep_area
from service.settings import Settings
from service.store.layout import AREAS, Area
from service.store.sweeping import Sweep

log = logging.getLogger(__name__)

T = TypeVar("T")

# How often the wall clock is compared with the monotonic clock.
WATCH_SECONDS = 30.0
# A step of the wall clock by more than this reschedules the next sweep.
RESCHEDULE_SECONDS = 60.0
# A step by more than this makes the ages of files doubtful: then a sweep of an area is put off by one interval if it
# would remove more than half of at least MIN_FILES files.
JUMP_SECONDS = 3600.0
MIN_FILES = 10
# `state` reports a fault once no sweep has ended for this many intervals.
MISSED_INTERVALS = 3
# How long `close` waits for a running sweep, which checks its stop flag before every file: only a hanging disk takes
# longer.
CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Clocks:
    """The wall clock, which gives files their age and can be set, and the monotonic clock, which cannot."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic

    def gap(self) -> float:
        """Seconds from the monotonic to the wall clock: constant unless the wall clock is set or the machine sleeps."""
        return self.wall() - self.monotonic()


@dataclass(frozen=True, slots=True)
class SweepEvents:
    """Callbacks: `swept(area, removed, failed)` with the files of an area, `ended(wall_clock)` after all areas."""

    swept: Callable[[str, int, int], None] = field(default=lambda area, removed, failed: None)
    ended: Callable[[float], None] = field(default=lambda wall_clock: None)


class Sweeper:
    """Sweeps all four areas on schedule, and reports each sweep to `events`.

    An interval of APScheduler follows the wall clock: after a step back, nothing would run for as long as the step. So
    every run is scheduled as a single date, computed from the monotonic clock, and rescheduled if the wall clock steps.
    APScheduler's `shutdown` does not wait for a running job, so `close` does.
    """

    def __init__(
        self,
        settings: Settings,
        events: SweepEvents | None = None,
        clocks: Clocks | None = None,
        keep: Callable[[], Awaitable[Collection[str]]] | None = None,
        forget: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`keep` returns the keys that must not be removed; `forget` removes the expired rows of the ledger."""
        self._keep = keep
        self._forget = forget
        self._settings = settings
        self._events = events or SweepEvents()
        self._clocks = clocks or Clocks()
        self._interval = 60 * settings.cleanup_interval_minutes
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._stopping = threading.Event()
        self._running: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        # Monotonic times: the end of the last sweep, and when the next one is due.
        self._ended = self._due = self._clocks.monotonic()
        # The gap between the clocks by which the next run was scheduled.
        self._scheduled_gap = self._clocks.gap()
        # The gap by which the ages of an area's files were last accepted; at start they are doubtful.
        self._accepted_gaps: dict[Area, float] = {}

    def state(self) -> str:
        """`ok`, or the reason why no files are swept."""
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
        """Schedule the next run for `_due`, converted to the wall clock as it is now."""
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
            if abs(step) > RESCHEDULE_SECONDS and not sweeping:
                log.warning("the wall clock stepped by %+.0f seconds: the next sweep is rescheduled", step)
                self._schedule()

    async def _tick(self) -> None:
        self._running = asyncio.create_task(self._sweep_all())
        # `shutdown` cancels running jobs and logs them as failed; `close` waits for the sweep itself.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(self._running)

    async def _sweep_all(self) -> None:
        try:
            keep = await self._kept()
            for area in AREAS:
                if keep is None and area in PROTECTED_AREAS:
                    continue
                gap = self._clocks.gap()
                doubtful = self._ages_are_doubtful(area, gap)
                if not (doubtful and await self._put_off(area, keep or ())):
                    self._count(area, await self._sweep(area, keep or ()))
                self._accepted_gaps[area] = gap
            if keep is not None and not doubtful:
                await self._forget_rows()
            self._end()
        finally:
            self._due = self._clocks.monotonic() + self._interval
            if not self._stopping.is_set():
                self._schedule()

    async def _kept(self) -> Collection[str] | None:
        """The keys that must not be removed; None if the ledger cannot be read."""
        try:
            return await self._keep() if self._keep else ()
        except ServiceError as error:
            log.warning("uploads/ and generated/ are not swept: %s", error.detail)
            return None

    async def _forget_rows(self) -> None:
        try:
            if self._forget:
                await self._forget()
        except ServiceError as error:
            log.warning("the ledger is not swept: %s", error.detail)

    def _ages_are_doubtful(self, area: Area, gap: float) -> bool:
        """Whether this is an area's first sweep, or the wall clock has jumped since its last one."""
        accepted = self._accepted_gaps.get(area)
        return accepted is None or abs(gap - accepted) > JUMP_SECONDS

    async def _put_off(self, area: Area, keep: Collection[str]) -> bool:
        """Whether to leave an area to the next run, because this one would remove most of its files."""
        planned = await self._sweep(area, keep, dry_run=True)
        if planned.seen < MIN_FILES or 2 * planned.files <= planned.seen:
            return False
        log.warning(
            "the sweep of %s/ is put off by one interval: it would remove %d of %d files, and the clock may be wrong",
            area, planned.files, planned.seen,
        )  # fmt: skip
        return True

    async def _sweep(self, area: Area, keep: Collection[str], *, dry_run: bool = False) -> Sweep:
        stopped = self._stopping.is_set
        return await _in_daemon_thread(
            partial(sweep_area, self._settings, area, dry_run=dry_run, stopped=stopped, keep=keep)
        )

    def _count(self, area: Area, done: Sweep) -> None:
        self._events.swept(area, done.files, done.failed)
        if done.files:
            log.info("swept %d files (%d bytes) from %s/", done.files, done.bytes, area)

    def _end(self) -> None:
        if not self._stopping.is_set():
            self._ended = self._clocks.monotonic()
            self._events.ended(self._clocks.wall())

    async def close(self) -> None:
        """Stop the scheduler, and a running sweep after its current file."""
        self._stopping.set()
        self._scheduler.shutdown(wait=False)
        if self._watch:
            self._watch.cancel()
        if self._running:
            _, hanging = await asyncio.wait([self._running], timeout=CLOSE_SECONDS)
            if hanging:
                log.warning("the sweep hangs on the disk; not waiting for it any longer")


async def _in_daemon_thread(work: Callable[[], T]) -> T:
    """Like `asyncio.to_thread`, but in a thread of its own, which the interpreter does not wait for at exit."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="sweep", daemon=True).start()
    return await asyncio.wrap_future(future)
