"""Connections: serving them, and the answer to what is no HTTP request at all."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage

from service.errors import MalformedRequest, ServiceError
from service.logs import REQUEST
from service.metrics import Metrics
from service.server.accepting import Reserve, accepting
from service.server.bodies import Bodies
from service.server.keys import ADMISSION, METRICS
from service.server.problems import problem
from service.server.sockets import open_sockets
from service.store.layout import request_id

log = logging.getLogger(__name__)

# Also how long a connection may take over its request head; aiohttp's own default is an hour.
KEEPALIVE_SECONDS = 30
# A connection that came so lately is not idle: its request may be there and was not read yet.
FRESH_SECONDS = 0.25
# For so long the client of a refused body may read the answer, which a reset could overtake.
REFUSED_SECONDS = 1.0
# Handlers were waited for by the admission; this is only for idle connections to close.
CLOSE_SECONDS = 1


class Connection(web.RequestHandler):
    """A connection whose errors below the routes have the form of all others, and are logged and counted."""

    __slots__ = ("_metrics", "_since")

    def __init__(self, *args: Any, metrics: Metrics | None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._metrics = metrics
        self._since = self._loop.time()

    @property
    def busy(self) -> bool:
        """Whether a request is being answered, or was received."""
        return self._current_request is not None or bool(self._messages)

    @property
    def idle(self) -> bool:
        """Whether it has waited for a request for a while, or still sends a body that was refused."""
        waits = self._waiter is not None and not self._waiter.done()
        return not self.busy and self._loop.time() - self._since >= (FRESH_SECONDS if waits else REFUSED_SECONDS)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._since = self._loop.time()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The parser's refusal, or a fault that no middleware met."""
        if request.writer.output_size > 0 or isinstance(exc, ConnectionError):
            raise ConnectionError("the answer is under way, or nobody is there to take it")
        mark = request_id()
        REQUEST.set(mark)
        error: ServiceError = MalformedRequest("this is not a well-formed HTTP/1.1 request")
        if status >= 500:
            log.error("unexpected fault on a connection", exc_info=exc)
            error = ServiceError("an unexpected fault", billed=None)
        else:
            log.warning("refused a malformed request from %s: %s", request.remote, _reason(exc))
        if self._metrics:
            self._metrics.answered("other", "other", error.status, 0)
        answer = problem(error, mark)
        answer.headers.update({"X-Request-Id": mark, "X-Content-Type-Options": "nosniff"})
        answer.force_close()
        return answer


def _reason(exc: BaseException | None) -> str:
    """What the parser found wrong, without what it quotes of the request, which may be a link or a key."""
    if type(exc) is BadHttpMessage:
        return exc.message.partition(":\n\n")[0]
    return type(exc).__name__


def _make_way(manager: web.Server, bodies: Bodies | None, count: int) -> bool:
    """Close up to `count` connections: idle ones, the oldest first, then those with the slowest bodies.

    Returns whether there are any that do no work, which are closed now or soon.
    """
    unused = [each for each in manager.connections if isinstance(each, Connection) and not each.busy]
    idle = [each for each in unused if each.idle][:count]
    for connection in idle:
        connection.force_close()
    if bodies and count > len(idle):
        bodies.end_slowest(count - len(idle))
    return bool(unused or bodies)


@contextlib.asynccontextmanager
async def listening(app: web.Application, host: str, port: int) -> AsyncIterator[list[tuple[str, int]]]:
    """Start the app and serve it; yields its hosts and ports. A client that hangs up cancels its handler."""
    reserve = Reserve()
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=CLOSE_SECONDS)
    try:
        # Within, so that what has started ends when the rest does not start.
        await runner.setup()
        loop, manager = asyncio.get_running_loop(), runner.server
        if manager is None:
            raise RuntimeError("the app did not start")
        # Bodies stay as they came: the form refuses an encoded one, and no bomb is unpacked before it can.
        options: dict[str, Any] = {"access_log": None, "keepalive_timeout": KEEPALIVE_SECONDS, "auto_decompress": False}
        metrics = app.get(METRICS)
        sockets = await asyncio.to_thread(open_sockets, host, port)
        addresses = [each.getsockname()[:2] for each in sockets]

        def connection() -> Connection:
            return Connection(manager, loop=loop, metrics=metrics, **options)

        bodies = app[ADMISSION].bodies if ADMISSION in app else None
        with accepting(sockets, connection, partial(_make_way, manager, bodies), reserve):
            yield addresses
    finally:
        await runner.cleanup()
        reserve.close()
