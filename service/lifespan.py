"""What lives as long as the app: the contexts, in start order; they end in reverse."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from aiohttp import web

from service.door import Door
from service.exports import ExportEvents, ImageExportService
from service.gemini.client import GeminiAccess, GeminiService, open_gemini
from service.gemini.standin import StandIn
from service.keys import DOOR, EXPORTS, GEMINI, HOT, METRICS, SETTINGS, SWEEPER, THUMBNAILS
from service.scheduler import Sweeper
from service.settings import MIB, Settings
from service.store.hot import HotFiles
from service.thumbnails import ThumbnailService

log = logging.getLogger(__name__)

EMULATOR_START_SECONDS = 30.0


@contextlib.asynccontextmanager
async def exports(app: web.Application) -> AsyncIterator[None]:
    """Storage, workers, the door, the downloads in memory."""
    metrics = app[METRICS]
    service = await asyncio.to_thread(
        ImageExportService, app[SETTINGS], ExportEvents(metrics.stepped_back, metrics.worker)
    )
    door = Door(app[SETTINGS], service.store)
    hot = HotFiles(app[SETTINGS].download_cache_mb * MIB)
    async with service:
        app[EXPORTS], app[DOOR], app[HOT] = service, door, hot
        metrics.gauge("requests_inside", "Requests past the door", lambda: sum(door.inside.values()))
        metrics.gauge("jobs_waiting", "Jobs in line for a worker", lambda: service.pool.waiting)
        metrics.gauge("workers_busy", "Workers with a job", lambda: service.pool.busy)
        with contextlib.closing(hot):
            yield


@contextlib.asynccontextmanager
async def gemini(app: web.Application) -> AsyncIterator[None]:
    """Gemini, or its local stand-in in a process of its own."""
    async with gemini_service(app[SETTINGS]) as client:
        app[GEMINI] = client
        app[THUMBNAILS] = ThumbnailService(client, app[EXPORTS], app[METRICS].called)
        yield
        await app[THUMBNAILS].close()


@contextlib.asynccontextmanager
async def sweeper(app: web.Application) -> AsyncIterator[None]:
    """The scheduled cleanup."""
    app[SWEEPER] = Sweeper(app[SETTINGS], app[METRICS], app[HOT].forget_removed)
    app[SWEEPER].start()
    yield
    await app[SWEEPER].close()


CONTEXTS = (exports, gemini, sweeper)


@contextlib.asynccontextmanager
async def gemini_service(settings: Settings) -> AsyncIterator[GeminiService]:
    """A client of Gemini, or of an emulator that was started for it; raises SettingsError without a key."""
    settings.require_gemini()
    if settings.emulates:
        async with (
            StandIn(EMULATOR_START_SECONDS).opened() as emulator,
            open_gemini(_access(settings, emulator.base_url), lambda: emulator.up) as client,
        ):
            yield client
    else:
        async with open_gemini(_access(settings, settings.gemini_base_url)) as client:
            yield client


def _access(settings: Settings, base_url: str | None) -> GeminiAccess:
    key = settings.gemini_api_key
    return GeminiAccess(
        api_key="emulator" if settings.emulates or key is None else key.get_secret_value(),
        base_url=base_url,
        api_version=settings.gemini_api_version,
        timeout=settings.gemini_timeout_seconds,
        retry=settings.gemini_retry_seconds,
        concurrency=settings.gemini_concurrency,
        max_reply_bytes=settings.gemini_max_reply_bytes,
    )
