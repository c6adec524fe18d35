"""What lives as long as the app: the contexts, in start order; they end in reverse."""

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import AsyncIterator

from aiohttp import web

from service.door import Door
from service.errors import SettingsError
from service.exports import ExportEvents, ImageExportService
from service.gemini.client import GeminiAccess, GeminiService, open_gemini
from service.keys import DOOR, EXPORTS, HOT, METRICS, SETTINGS, SWEEPER, THUMBNAILS
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
    async with contextlib.AsyncExitStack() as stack:
        base_url = await stack.enter_async_context(emulator()) if settings.emulates else settings.gemini_base_url
        yield await stack.enter_async_context(open_gemini(_access(settings, base_url)))


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


@contextlib.asynccontextmanager
async def emulator() -> AsyncIterator[str]:
    """The stand-in's base URL. It ends with its standard input, so it cannot outlive this process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service.gemini.emulator", "--port", "0",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    if process.stdin is None or process.stdout is None:
        raise SettingsError("the emulator has no pipes")
    try:
        try:
            async with asyncio.timeout(EMULATOR_START_SECONDS):
                line = await process.stdout.readline()
        except TimeoutError:
            raise SettingsError(f"the emulator did not start within {EMULATOR_START_SECONDS:g} seconds") from None
        if not line:
            raise SettingsError("the emulator did not start; the line above says why")
        base_url = f"http://127.0.0.1:{json.loads(line)['port']}"
        log.warning("no Gemini here: the local emulator on %s draws every picture", base_url)
        yield base_url
    finally:
        process.stdin.close()
        await process.wait()
