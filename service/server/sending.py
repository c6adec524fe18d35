"""Responses: headers that all carry, JSON answers, and prepared responses sent in one system call."""

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

_EXPOSED = "X-Request-Id, Retry-After, Content-Range, ETag"


def common_headers(request: web.Request) -> dict[str, str]:
    """Headers that every answer carries, downloads and errors included."""
    headers = {"X-Request-Id": request[REQUEST_ID], "X-Content-Type-Options": "nosniff"}
    allowed = request.app[SETTINGS].cors_origins
    if allowed:
        # Also without an Origin: a cache must not hand this answer to a page that may read another.
        headers["Vary"] = "Origin"
        origin = request.headers.get(hdrs.ORIGIN, "")
        if origin.lower() in allowed:
            headers |= {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": _EXPOSED}
    return headers


def answer(model: BaseModel) -> web.Response:
    return web.Response(body=model.model_dump_json().encode(), content_type="application/json")


class PreparedResponse(web.StreamResponse):
    """What `web.Response` is, head for head, but its body is not copied: aiohttp joins the two to send them."""

    def __init__(self, body: bytes, status: int, lines: str) -> None:
        """`lines`: the headers that are its own, as `spelled` has them; the others come when it is sent."""
        super().__init__(status=status)
        self._piece = body
        self._lines = lines
        self._lasting = False

    @property
    def keep_alive(self) -> bool:
        return self._lasting

    def send(self, request: web.Request) -> None:
        """All of it, now; what the socket does not take waits in the transport. Raises ConnectionResetError."""
        self._lasting = request.keep_alive
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client went away")
        _write(transport, self._head(request), self._piece)

    def _head(self, request: web.Request) -> bytes:
        version, others = request.version, common_headers(request)
        others["Date"], others["Server"] = _date(int(time.time())), SERVER_SOFTWARE
        if self._lasting != (version >= HttpVersion11):
            others["Connection"] = "keep-alive" if self._lasting else "close"
        first = f"HTTP/{version.major}.{version.minor} {self.status} {self.reason}\r\n"
        return f"{first}{self._lines}{spelled(others)}\r\n".encode()

    async def prepare(self, request: web.BaseRequest) -> None:
        """It was sent."""

    async def write_eof(self, data: bytes = b"") -> None:
        """It was sent."""


def spelled(headers: Mapping[str, str]) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def _write(transport: asyncio.WriteTransport, head: bytes, body: bytes) -> None:
    """Straight to the socket while nothing waits before it: before Python 3.12 `writelines` joins, too."""
    sent = 0
    if not transport.get_write_buffer_size():
        try:
            sent = os.writev(transport.get_extra_info("socket").fileno(), (head, body))
        except BlockingIOError:
            pass
        except OSError as error:
            raise ConnectionResetError("the client cannot be reached") from error
    if sent < len(head) + len(body):
        # To drain means all of it: what a client does not take would wait for it without end.
        transport.set_write_buffer_limits(0)
    for part in (head, body):
        if sent < len(part):
            transport.write(memoryview(part)[sent:])
        sent = max(0, sent - len(part))
