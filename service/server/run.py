"""Serves the app until a stop signal, with graceful shutdown."""

import asyncio
import contextlib
import gc
import logging
import resource
import sys
from collections.abc import Iterator, Sequence

from aiohttp import web

from service.server.connections import listening
from service.server.keys import ADMISSION, JOBS, SETTINGS
from service.server.notify import STOPPING, notify, notifying
from service.settings import Settings
from service.signals import on_stop_signal
from service.store.disk import start_disk_threads

log = logging.getLogger(__name__)

# Objects that are allocated before the next collection of the youngest generation; Python's default is 700.
GC_THRESHOLD = 5000


async def serve(app: web.Application) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP, then drain for at most SHUTDOWN_GRACE_SECONDS.

    A second signal ends the drain; one during the start aborts the start.
    """
    settings = app[SETTINGS]
    _raise_file_limit()
    await start_disk_threads()
    stops = _StopSignals()
    on_stop_signal(stops.receive)
    with stops.abort_start():
        async with listening(app, settings.host, settings.port) as addresses:
            stops.started()
            # Exclude all imported modules from full collections, which would block the event loop for 25 ms.
            gc.collect()
            gc.freeze()
            # Collect less often: while many requests are in flight, a full collection blocks it for 100 ms.
            gc.set_threshold(GC_THRESHOLD)
            log.info("serving on %s", ", ".join(_url(host, port) for host, port in addresses))
            if sys.stderr.isatty():
                log.info("open %s in a browser; Ctrl-C stops the service", _address_to_open(settings, addresses))
            async with notifying():
                await stops.next()
                notify(STOPPING)
                await _drain(app, stops, settings.shutdown_grace_seconds)
    log.info("stopped")


class _StopSignals:
    """A queue of stop signals; the first one before `started` cancels the task that starts the service."""

    def __init__(self) -> None:
        self._received: asyncio.Queue[None] = asyncio.Queue()
        self._starting = asyncio.current_task()
        self._aborted = False

    def receive(self) -> None:
        if self._starting and not self._aborted:
            self._aborted = True
            self._starting.cancel()
        else:
            self._received.put_nowait(None)

    def started(self) -> None:
        self._starting = None

    async def next(self) -> None:
        await self._received.get()

    @contextlib.contextmanager
    def abort_start(self) -> Iterator[None]:
        """Suppress the cancellation by a signal during the start, and no other."""
        try:
            yield
        except asyncio.CancelledError:
            if not (self._starting and self._aborted):
                raise
            self._starting.uncancel()


async def _drain(app: web.Application, stops: _StopSignals, seconds: float) -> None:
    """Refuse new requests and wait for the admitted ones, at most `seconds` or until the next signal."""
    admission = app[ADMISSION]
    admission.drain()
    app[JOBS].drain()
    unfinished = admission.unfinished or app[JOBS].running
    if not unfinished:
        return
    log.info("draining: waiting at most %g seconds for %d requests", seconds, unfinished)
    waits = [asyncio.ensure_future(_finished(app)), asyncio.ensure_future(stops.next())]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if left := admission.unfinished:
        log.warning("stopping with %d requests unfinished", left)


async def _finished(app: web.Application) -> None:
    """Wait for the admitted requests, and for those that recovery runs, which were admitted by another process."""
    await app[ADMISSION].emptied()
    await app[JOBS].finished()


def _address_to_open(settings: Settings, addresses: Sequence[tuple[str, int]]) -> str:
    """PUBLIC_URL, or the first address, with loopback for a wildcard."""
    host, port = addresses[0]
    return settings.public_url or _url({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)  # noqa: S104  # compared


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _raise_file_limit() -> None:
    """Raise the soft limit of file descriptors to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
