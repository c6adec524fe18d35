"""Running the app until a signal: new requests are refused, those inside are answered, then everything ends."""

import asyncio
import contextlib
import logging
import resource
import signal
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from service.app import create_app
from service.keys import DOOR
from service.settings import Settings

log = logging.getLogger(__name__)

# Also how long a connection may take over its request head; aiohttp's own default is an hour.
KEEPALIVE_SECONDS = 30
BACKLOG = 1024
# Disk threads: they wait for the disk, not for a core.
DISK_THREADS = 32
# Handlers were waited for by the door; this is only for idle connections to close.
CLOSE_SECONDS = 1


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain for at most SHUTDOWN_GRACE_SECONDS; a second signal ends the wait."""
    settings.require_guarded()
    _raise_file_limit()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(DISK_THREADS, "disk"))
    signals: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    runner = web.AppRunner(
        create_app(settings),
        access_log=None,
        handler_cancellation=True,
        keepalive_timeout=KEEPALIVE_SECONDS,
        shutdown_timeout=CLOSE_SECONDS,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port, backlog=BACKLOG)
        await site.start()
        log.info("serving on %s", ", ".join(_urls(runner)))
        await signals.get()
        await _drain(runner.app, signals, settings.shutdown_grace_seconds)
    finally:
        await runner.cleanup()
    log.info("stopped")


async def _drain(app: web.Application, signals: asyncio.Queue[int], seconds: float) -> None:
    door = app[DOOR]
    door.draining = True
    inside = sum(door.inside.values())
    if not inside:
        return
    log.info("draining: %d requests inside, at most %g seconds", inside, seconds)
    waits = [asyncio.ensure_future(door.emptied()), asyncio.ensure_future(signals.get())]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if left := sum(door.inside.values()):
        log.warning("stopping with %d requests unfinished", left)


def _urls(runner: web.AppRunner) -> list[str]:
    return [f"http://{f'[{host}]' if ':' in host else host}:{port}" for host, port, *_ in runner.addresses]


def _raise_file_limit() -> None:
    """Every waiting request holds a socket and a few files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
