"""Running the app until a signal: new requests are refused, those inside are answered, then everything ends."""

import asyncio
import contextlib
import gc
import logging
import resource
import sys
from collections.abc import Iterator, Sequence

from aiohttp import web

from service.server.connections import listening
from service.server.keys import ADMISSION, SETTINGS
from service.settings import Settings
from service.signals import on_stop_signal
from service.store.disk import start_disk_threads

log = logging.getLogger(__name__)


async def serve(app: web.Application) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP, then drain for at most SHUTDOWN_GRACE_SECONDS.

    A second signal ends the wait; one during the start gives the start up.
    """
    settings = app[SETTINGS]
    _raise_file_limit()
    await start_disk_threads()
    stops = _Stops()
    on_stop_signal(stops.hear)
    with stops.start_given_up():
        async with listening(app, settings.host, settings.port) as addresses:
            stops.started()
            # A full collection would look at all that was imported: 25 ms of the loop, and none of it ever goes away.
            gc.collect()
            gc.freeze()
            log.info("serving on %s", ", ".join(_url(host, port) for host, port in addresses))
            if sys.stderr.isatty():
                log.info("open %s in a browser; Ctrl-C stops the service", _address_to_open(settings, addresses))
            await stops.next()
            await _drain(app, stops, settings.shutdown_grace_seconds)
    log.info("stopped")


class _Stops:
    """The stop signals in their order. One that comes before `started` cancels the task that starts."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[None] = asyncio.Queue()
        self._starting = asyncio.current_task()
        self._given_up = False

    def hear(self) -> None:
        if self._starting and not self._given_up:
            self._given_up = True
            self._starting.cancel()
        else:
            self._heard.put_nowait(None)

    def started(self) -> None:
        self._starting = None

    async def next(self) -> None:
        await self._heard.get()

    @contextlib.contextmanager
    def start_given_up(self) -> Iterator[None]:
        """End a start that a signal cancelled; a cancellation from elsewhere passes."""
        try:
            yield
        except asyncio.CancelledError:
            if not (self._starting and self._given_up):
                raise
            self._starting.uncancel()


async def _drain(app: web.Application, stops: _Stops, seconds: float) -> None:
    admission = app[ADMISSION]
    admission.drain()
    inside = sum(admission.inside.values())
    if not inside:
        return
    log.info("draining: %d requests inside, at most %g seconds", inside, seconds)
    waits = [asyncio.ensure_future(admission.emptied()), asyncio.ensure_future(stops.next())]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if left := sum(admission.inside.values()):
        log.warning("stopping with %d requests unfinished", left)


def _address_to_open(settings: Settings, addresses: Sequence[tuple[str, int]]) -> str:
    """PUBLIC_URL, or the first address; no browser opens a wildcard address."""
    host, port = addresses[0]
    return settings.public_url or _url({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)  # noqa: S104  # compared


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _raise_file_limit() -> None:
    """Every waiting request holds a socket and a few files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
