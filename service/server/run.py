"""Running the app until a signal: new requests are refused, those inside are answered, then everything ends."""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from service.server.connections import listening
from service.server.keys import ADMISSION, SETTINGS

log = logging.getLogger(__name__)

# Disk threads: they wait for the disk, not for a core.
DISK_THREADS = 32


async def serve(app: web.Application) -> None:
    """Serve until SIGTERM or SIGINT, then drain for at most SHUTDOWN_GRACE_SECONDS; a second signal ends the wait."""
    settings = app[SETTINGS]
    _raise_file_limit()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(DISK_THREADS, "disk"))
    signals: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    async with listening(app, settings.host, settings.port) as addresses:
        # A full collection would look at all that was imported: 25 ms of the loop, and none of it ever goes away.
        gc.collect()
        gc.freeze()
        log.info("serving on %s", ", ".join(_url(host, port) for host, port in addresses))
        await signals.get()
        await _drain(app, signals, settings.shutdown_grace_seconds)
    log.info("stopped")


async def _drain(app: web.Application, signals: asyncio.Queue[int], seconds: float) -> None:
    admission = app[ADMISSION]
    admission.drain()
    inside = sum(admission.inside.values())
    if not inside:
        return
    log.info("draining: %d requests inside, at most %g seconds", inside, seconds)
    waits = [asyncio.ensure_future(admission.emptied()), asyncio.ensure_future(signals.get())]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if left := sum(admission.inside.values()):
        log.warning("stopping with %d requests unfinished", left)


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _raise_file_limit() -> None:
    """Every waiting request holds a socket and a few files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
