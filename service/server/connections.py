"""Serving connections, and problem+json for what aiohttp's parser refuses."""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage

from service.errors import MalformedRequest, ServiceError
from service.logs import REQUEST
from service.metrics import OTHER, Metrics
from service.server.accepting import Reserve, accepting
from service.server.bodies import Bodies
from service.server.keys import ADMISSION, METRICS, SETTINGS
from service.server.problems import openai_error, problem
from service.server.sockets import open_sockets
from service.store.layout import request_id

log = logging.getLogger(__name__)

# Also the time limit for a request head; aiohttp's default is an hour.
KEEPALIVE_SECONDS = 30
# A newer connection is not idle: its request may not have been read yet.
FRESH_SECONDS = 0.25
# How long a client whose body was refused may read the response before the connection is closed.
REFUSED_SECONDS = 1.0
# What is kept of the bytes that came last: of a request that the parser refuses, only they tell the path.
BEGIN_BYTES = 64
_OPENAI_TARGET = re.compile(rb"\S+ (?:https?://[^/\s]*)?/v1[/?\s]")
# For connections to close at shutdown; the drain has waited for the handlers already.
CLOSE_SECONDS = 1


class Connection(web.RequestHandler):
    """A connection whose errors outside of handlers are problem+json, too, and are logged and counted."""

    __slots__ = ("_begin", "_metrics", "_public_url", "_since")

    def __init__(self, *args: Any, metrics: Metrics | None, public_url: str | None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._metrics = metrics
        self._public_url = public_url
        self._begin = b""
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

    def data_received(self, data: bytes) -> None:
        self._begin = data[:BEGIN_BYTES]
        super().data_received(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The response to what the parser refused, or to an exception that no middleware caught."""
        if request.writer.output_size > 0 or isinstance(exc, ConnectionError):
            raise ConnectionError("the response has begun, or the client disconnected")
        own_id = request_id()
        REQUEST.set(own_id)
        error: ServiceError = MalformedRequest("this is not a well-formed HTTP/1.1 request")
        if status >= 500:
            log.error("unexpected fault on a connection", exc_info=exc)
            error = ServiceError("an unexpected fault", billed=None)
        else:
            log.warning("refused a malformed request from %s: %s", request.remote, _reason(exc))
        if self._metrics:
            self._metrics.answered(OTHER, OTHER, error.status, 0)
            self._metrics.failed(error.code)
        openai = _OPENAI_TARGET.match(self._begin)
        answer = openai_error(error) if openai else problem(error, own_id, public_url=self._public_url)
        answer.headers.update({"X-Request-Id": own_id, "X-Content-Type-Options": "nosniff"})
        answer.force_close()
        return answer


def _reason(exc: BaseException | None) -> str:
    """Why the parser refused, without what it quotes of the request, which may hold a signature or a key."""
    if type(exc) is BadHttpMessage:
        return exc.message.partition(":\n\n")[0]
    return type(exc).__name__


def _close_unused(manager: web.Server, bodies: Bodies | None, count: int) -> bool:
    """Close up to `count` connections: idle ones, the oldest first, then those with the slowest bodies.

    Returns whether there are any without a request in progress; those are closed now or soon.
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
    """Start the app and serve it; yields its hosts and ports. A handler is cancelled when its client disconnects."""
    reserve = Reserve()
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=CLOSE_SECONDS)
    try:
        # Inside the try, so that a failed start ends what has started.
        await runner.setup()
        loop, manager = asyncio.get_running_loop(), runner.server
        if manager is None:
            raise RuntimeError("the app did not start")
        # No decompression, which could be a bomb: the form refuses encoded bodies.
        options: dict[str, Any] = {"access_log": None, "keepalive_timeout": KEEPALIVE_SECONDS, "auto_decompress": False}
        metrics = app.get(METRICS)
        public_url = app[SETTINGS].public_url if SETTINGS in app else None
        sockets = await asyncio.to_thread(open_sockets, host, port)
        addresses = [each.getsockname()[:2] for each in sockets]

        def connection() -> Connection:
            return Connection(manager, loop=loop, metrics=metrics, public_url=public_url, **options)

        bodies = app[ADMISSION].bodies if ADMISSION in app else None
        with accepting(sockets, connection, partial(_close_unused, manager, bodies), reserve):
            yield addresses
    finally:
        await runner.cleanup()
        reserve.close()
