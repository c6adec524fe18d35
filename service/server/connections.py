"""Connections: the socket that listens, and the answer to what is no HTTP request at all."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator
from functools import partial
from itertools import islice
from typing import Any

from aiohttp import web

from service.errors import MalformedRequest, ServiceError
from service.server.accepting import accepting
from service.server.problems import problem
from service.store.layout import request_id

log = logging.getLogger(__name__)

# Also how long a connection may take over its request head; aiohttp's own default is an hour.
KEEPALIVE_SECONDS = 30
# Handlers were waited for by the admission; this is only for idle connections to close.
CLOSE_SECONDS = 1


class Connection(web.RequestHandler):
    """A connection whose errors below the routes have the form of all others."""

    __slots__ = ()

    @property
    def idle(self) -> bool:
        """Whether it waits for a request, or for the rest of its head."""
        return self._waiter is not None and not self._waiter.done()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The parser's refusal, or a fault that no middleware met; its message may quote a link, so it is not kept."""
        if request.writer.output_size > 0 or isinstance(exc, ConnectionError):
            raise ConnectionError("the answer is under way, or nobody is there to take it")
        error: ServiceError = MalformedRequest("this is not a well-formed HTTP/1.1 request")
        if status >= 500:
            log.error("unexpected fault on a connection", exc_info=exc)
            error = ServiceError("an unexpected fault", billed=None)
        mark = request_id()
        answer = problem(error, mark)
        answer.headers.update({"X-Request-Id": mark, "X-Content-Type-Options": "nosniff"})
        answer.force_close()
        return answer


async def _bound_sockets(host: str, port: int) -> list[socket.socket]:
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, start_serving=False)
    try:
        return [socket.socket(fileno=os.dup(each.fileno())) for each in server.sockets]
    finally:
        server.close()


def _close_idle(manager: web.Server, count: int) -> None:
    """Close so many of the connections that have waited longest and have no request under way."""
    idle = (each for each in manager.connections if isinstance(each, Connection) and each.idle)
    for connection in islice(idle, count):
        connection.force_close()


@contextlib.asynccontextmanager
async def listening(app: web.Application, host: str, port: int) -> AsyncIterator[list[tuple[str, int]]]:
    """Start the app and serve it; yields its hosts and ports. A client that hangs up cancels its handler."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=CLOSE_SECONDS)
    try:
        # Within, so that what has started ends when the rest does not start.
        await runner.setup()
        loop, manager = asyncio.get_running_loop(), runner.server
        if manager is None:
            raise RuntimeError("the app did not start")
        # Bodies stay as they came: the form refuses an encoded one, and no bomb is unpacked before it can.
        options: dict[str, Any] = {"access_log": None, "keepalive_timeout": KEEPALIVE_SECONDS, "auto_decompress": False}
        sockets = await _bound_sockets(host, port)
        addresses = [each.getsockname()[:2] for each in sockets]
        with accepting(sockets, lambda: Connection(manager, loop=loop, **options), partial(_close_idle, manager)):
            yield addresses
    finally:
        await runner.cleanup()
