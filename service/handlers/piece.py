"""Answers that are small and known whole: head and body leave in one system call."""

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http import SERVER_SOFTWARE


class Piece(web.StreamResponse):
    """What `web.Response` is, head for head, but its body is not copied: aiohttp joins the two to send them."""

    def __init__(self, body: bytes, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(status=status, headers=headers)
        self._piece = body
        self._lasting = False

    @property
    def keep_alive(self) -> bool:
        return self._lasting

    async def send(self, request: web.Request) -> None:
        """All of it, now; what the socket does not take waits in the transport. Raises ConnectionResetError."""
        await request.app.on_response_prepare.send(request, self)
        self._lasting = request.keep_alive
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client went away")
        _write(transport, self._head(request), self._piece)

    def _head(self, request: web.Request) -> bytes:
        headers, version = self.headers, request.version
        headers[hdrs.DATE] = _date(int(time.time()))
        headers[hdrs.SERVER] = SERVER_SOFTWARE
        if self._lasting != (version >= HttpVersion11):
            headers[hdrs.CONNECTION] = "keep-alive" if self._lasting else "close"
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        return f"HTTP/{version.major}.{version.minor} {self.status} {self.reason}\r\n{lines}\r\n".encode()

    async def prepare(self, request: web.BaseRequest) -> None:
        """It was sent."""

    async def write_eof(self, data: bytes = b"") -> None:
        """It was sent."""


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def _write(transport: asyncio.WriteTransport, head: bytes, body: bytes) -> None:
    """Straight to the socket while nothing waits before it: before Python 3.12 `writelines` joins, too."""
    sent = 0
    if not transport.get_write_buffer_size():
        with contextlib.suppress(BlockingIOError):
            sent = os.writev(transport.get_extra_info("socket").fileno(), (head, body))
    for part in (head, body):
        if sent < len(part):
            transport.write(memoryview(part)[sent:])
        sent = max(0, sent - len(part))
