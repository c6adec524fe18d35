"""The cleanup contexts of the app, in start order; aiohttp ends them in reverse."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator

from aiohttp import web

from service.backend import gemini_service
from service.exports import ImageExportService
from service.jobs.cleaning import Cleaning
from service.jobs.jobs import JobService
from service.jobs.recovery import Recovery
from service.keyring import Keyring
from service.ledger.buckets import Buckets
from service.ledger.ledger import DAY, ledger_access, open_ledger
from service.ledger.rows import microseconds
from service.scheduler import Sweeper, SweepEvents
from service.secret_files import warn_if_exposed
from service.server.admission import Admission
from service.server.background import in_background
from service.server.keys import (
    ADMISSION,
    BUCKETS,
    EXPORTS,
    GEMINI,
    HOT,
    JOBS,
    KEYRING,
    LEDGER,
    METRICS,
    SETTINGS,
    SWEEPER,
    THUMBNAILS,
)
from service.server.measuring import add_gauges, export_events, reports
from service.settings import MIB, Settings
from service.spans import set_up_spans
from service.store import descriptors
from service.store.hot import HotFiles
from service.thumbnails import ThumbnailService

log = logging.getLogger(__name__)

WATCH_SECONDS = 1.0
LOG_SECONDS = 60.0


@contextlib.asynccontextmanager
async def keyring(app: web.Application) -> AsyncIterator[None]:
    """The API keys, and the watch over their file."""
    app[KEYRING] = await asyncio.to_thread(_open_keyring, app[SETTINGS])
    async with in_background(app[KEYRING].watch()):
        yield


def _open_keyring(settings: Settings) -> Keyring:
    warn_if_exposed("GEMINI_API_KEY_FILE", settings.gemini_api_key_file)
    warn_if_exposed("SIGNING_SECRET_FILE", settings.signing_secret_file)
    opened = Keyring(settings)
    opened.load()
    return opened


@contextlib.asynccontextmanager
async def spans(_: web.Application) -> AsyncIterator[None]:
    """The export of OpenTelemetry spans, if it is asked for."""
    end = await asyncio.to_thread(set_up_spans)
    yield
    await asyncio.to_thread(end)


@contextlib.asynccontextmanager
async def exports(app: web.Application) -> AsyncIterator[None]:
    """Storage, workers, admission control, and the download cache."""
    _warn_of_private_exports(app[SETTINGS])
    service = await asyncio.to_thread(ImageExportService, app[SETTINGS], export_events(app[METRICS]))
    admission = Admission(app[SETTINGS], service.store)
    hot = HotFiles(app[SETTINGS].download_cache_mb * MIB)
    async with service:
        app[EXPORTS], app[ADMISSION], app[HOT] = service, admission, hot
        add_gauges(app[METRICS], service, admission)
        with contextlib.closing(hot):
            async with in_background(_watch_descriptors(hot)):
                yield


async def _watch_descriptors(hot: HotFiles) -> None:
    """While file descriptors are short, close cached downloads, and warn once a minute.

    Polled, since `prlimit` can lower the limit of a running process.
    """
    logged = -math.inf
    while True:
        hot.free_descriptors()
        now = time.monotonic()
        if descriptors.spare(descriptors.BEGIN) < 1 and now - logged >= LOG_SECONDS:
            logged = now
            log.warning("refusing new work: %s; raise the limit (ulimit -n)", descriptors.shortage())
        await asyncio.sleep(WATCH_SECONDS)


def _warn_of_private_exports(settings: Settings) -> None:
    if settings.accel_redirect_prefix and settings.storage_mode is None:
        log.warning(
            "ACCEL_REDIRECT_PREFIX is set and STORAGE_MODE is not: an nginx of another user cannot read the exports;"
            " set STORAGE_MODE=shared, or private where nginx runs as this user"
        )


@contextlib.asynccontextmanager
async def gemini(app: web.Application) -> AsyncIterator[None]:
    """The Gemini client; with the emulator, also its process."""
    async with gemini_service(app[SETTINGS]) as client:
        app[GEMINI] = client
        yield


@contextlib.asynccontextmanager
async def ledger(app: web.Application) -> AsyncIterator[None]:
    """The ledger of requests, calls and costs."""
    metrics = app[METRICS]
    access = ledger_access(app[SETTINGS])
    async with open_ledger(access, metrics.committed, metrics.overspent) as opened:
        app[LEDGER] = opened
        app[BUCKETS] = Buckets(access.connect_buckets)
        yield
        await app[BUCKETS].close()


@contextlib.asynccontextmanager
async def jobs(app: web.Application) -> AsyncIterator[None]:
    """Running requests, and the recovery of those that a crash interrupted."""
    settings, metrics = app[SETTINGS], app[METRICS]
    thumbnails = app[THUMBNAILS] = ThumbnailService(app[GEMINI], app[EXPORTS], reports(metrics))
    app[JOBS] = JobService(app[LEDGER], thumbnails, emulated=settings.emulates, budget=settings.budget_nano is not None)
    key_lifetime = ledger_access(settings).rules.key_lifetime
    recovery = Recovery(app[JOBS], app[EXPORTS], key_lifetime, metrics.recovered)
    work = [asyncio.create_task(each) for each in (recovery.run(), Cleaning(app[LEDGER], app[EXPORTS]).run())]
    yield
    for task in work:
        task.cancel()
    await asyncio.gather(*work, return_exceptions=True)
    await thumbnails.close()
    await app[JOBS].close()


@contextlib.asynccontextmanager
async def sweeper(app: web.Application) -> AsyncIterator[None]:
    """Scheduled sweeps."""
    metrics, hot = app[METRICS], app[HOT]

    def ended(wall_clock: float) -> None:
        metrics.sweep_ended(wall_clock)
        hot.forget_removed()

    ledger, days = app[LEDGER], app[SETTINGS].ledger_retention_days

    async def forget() -> None:
        if days:
            await ledger.forget(microseconds() - round(days * DAY))

    app[SWEEPER] = Sweeper(app[SETTINGS], SweepEvents(metrics.swept, ended), keep=ledger.protected, forget=forget)
    app[SWEEPER].start()
    yield
    await app[SWEEPER].close()


CONTEXTS = (spans, keyring, exports, ledger, gemini, jobs, sweeper)
