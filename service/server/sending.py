"""Responses: common headers, JSON answers, and prepared responses that are sent with one system call."""

import asyncio
import os
import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http import SERVER_SOFTWARE
from pydantic import BaseModel

from service.server.keys import REQUEST_ID, SETTINGS

_EXPOSED = (
    "X-Request-Id, Retry-After, Content-Range, ETag, Location, Preference-Applied, Idempotency-Replayed, RateLimit,"
    " RateLimit-Policy, X-Should-Retry"
)


def common_headers(request: web.Request) -> dict[str, str]:
    """The headers of every response, downloads and errors included."""
    headers = {"X-Request-Id": request[REQUEST_ID], "X-Content-Type-Options": "nosniff"}
    allowed = request.app[SETTINGS].cors_origins
    if allowed:
        # Also without an Origin header, so that no cache serves this response to another origin.
        headers["Vary"] = "Origin"
        origin = request.headers.get(hdrs.ORIGIN, "")
        if origin.lower() in allowed:
            headers |= {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": _EXPOSED}
    return headers


def answer(model: BaseModel) -> web.Response:
    """A 200 response with the model as JSON."""
    return web.Response(body=model.model_dump_json().encode(), content_type="application/json")


class PreparedResponse(web.StreamResponse):
    """Like `web.Response`, but faster: head and body are written without joining them, which copies the body."""

    def __init__(self, body: bytes, status: int, headers: str) -> None:
        """`headers` are formatted by `header_lines`; the common ones are added by `send`."""
        super().__init__(status=status)
        self._data = body
        self._body_length = len(body)
        self._header_lines = headers
        self._kept_alive = False

    @property
    def keep_alive(self) -> bool:
        return self._kept_alive

    def send(self, request: web.Request) -> None:
        """Write head and body to the socket, and the rest to the transport's buffer; raises ConnectionResetError."""
        self._kept_alive = request.keep_alive
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client disconnected")
        _write(transport, self._head(request), self._data)

    def _head(self, request: web.Request) -> bytes:
        version, common = request.version, common_headers(request)
        common["Date"], common["Server"] = _date(int(time.time())), SERVER_SOFTWARE
        if self._kept_alive != (version >= HttpVersion11):
            common["Connection"] = "keep-alive" if self._kept_alive else "close"
        status_line = f"HTTP/{version.major}.{version.minor} {self.status} {self.reason}\r\n"
        return f"{status_line}{self._header_lines}{header_lines(common)}\r\n".encode()

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing: `send` did it."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing: `send` did it."""


def header_lines(headers: Mapping[str, str]) -> str:
    """The headers as they are sent, each ended by CRLF."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def _write(transport: asyncio.WriteTransport, head: bytes, body: bytes) -> None:
    """Write to the socket if the transport's buffer is empty: before Python 3.12 `writelines` joins its parts, too."""
    sent = 0
    if not transport.get_write_buffer_size():
        try:
            sent = os.writev(transport.get_extra_info("socket").fileno(), (head, body))
        except BlockingIOError:
            pass
        except OSError as error:
            raise ConnectionResetError("the client cannot be reached") from error
    if sent < len(head) + len(body):
        # Let `drain` wait until the buffer is empty, so that the minimum throughput covers all of it.
        transport.set_write_buffer_limits(0)
    for part in (head, body):
        if sent < len(part):
            transport.write(memoryview(part)[sent:])
        sent = max(0, sent - len(part))
