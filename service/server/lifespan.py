"""What lives as long as the app: the contexts, in start order; they end in reverse."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from service.backend import gemini_service
from service.exports import ExportEvents, ImageExportService
from service.scheduler import Sweeper
from service.server.admission import Admission
from service.server.keys import ADMISSION, EXPORTS, GEMINI, HOT, METRICS, SETTINGS, SWEEPER, THUMBNAILS
from service.settings import MIB
from service.store.hot import HotFiles
from service.thumbnails import ThumbnailService


@contextlib.asynccontextmanager
async def exports(app: web.Application) -> AsyncIterator[None]:
    """Storage, workers, the admission, the downloads in memory."""
    metrics = app[METRICS]
    service = await asyncio.to_thread(ImageExportService, app[SETTINGS], ExportEvents(metrics.warned, metrics.worker))
    admission = Admission(app[SETTINGS], service.store)
    hot = HotFiles(app[SETTINGS].download_cache_mb * MIB)
    async with service:
        app[EXPORTS], app[ADMISSION], app[HOT] = service, admission, hot
        metrics.gauge("requests_inside", "Requests past the admission", lambda: sum(admission.inside.values()))
        metrics.gauge("bodies_being_read", "Request bodies being read", lambda: len(admission.bodies))
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
