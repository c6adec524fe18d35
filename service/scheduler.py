"""The clock of the sweep: at start and every CLEANUP_INTERVAL_MINUTES, never two at once."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from service.metrics import Metrics
from service.retention import Sweep, sweep_area
from service.settings import Settings
from service.store.layout import AREAS, Area

log = logging.getLogger(__name__)


class Sweeper:
    """Sweeps all four rooms, then calls `swept`.

    `shutdown` of the scheduler does not wait for a running job, so `close` does.
    """

    def __init__(self, settings: Settings, metrics: Metrics, swept: Callable[[], None] = lambda: None) -> None:
        self._settings = settings
        self._metrics = metrics
        self._swept = swept
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._running: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        return bool(self._scheduler.running)

    def start(self) -> None:
        self._scheduler.add_job(
            self._tick,
            IntervalTrigger(seconds=60 * self._settings.cleanup_interval_minutes, timezone=UTC),
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
            next_run_time=datetime.now(UTC),
        )
        self._scheduler.start()

    async def _tick(self) -> None:
        self._running = asyncio.create_task(self._sweep_all())
        # Ending the scheduler cancels its jobs, which it would log as faults; `close` waits for the sweep itself.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(self._running)

    async def _sweep_all(self) -> None:
        for area in AREAS:
            done = await asyncio.to_thread(sweep_area, self._settings, area)
            self._count(area, done)
        self._swept()

    def _count(self, area: Area, done: Sweep) -> None:
        self._metrics.swept.labels(area).inc(done.files)
        self._metrics.sweep_errors.inc(len(done.errors))
        if done.files:
            log.info("swept %d files (%d bytes) from %s/", done.files, done.bytes, area)

    async def close(self) -> None:
        self._scheduler.shutdown(wait=False)
        if self._running:
            await asyncio.wait([self._running])
