"""Minimum throughput of uploads and downloads, against slow clients."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import web


@dataclass(frozen=True, slots=True)
class MinimumThroughput:
    """Progress at least every `stall_seconds`, and on average `bytes_per_second` after the first `stall_seconds`.

    As in Apache's mod_reqtimeout (`body=30,MinRate=10240`), a transfer may take `stall_seconds`, and a second more for
    every `bytes_per_second` bytes; 0 turns the average off.
    """

    stall_seconds: float
    bytes_per_second: int

    def seconds_left(self, moved: int, elapsed: float) -> float:
        """How long a transfer that moved `moved` bytes in `elapsed` seconds may wait for the next byte."""
        if not self.bytes_per_second:
            return self.stall_seconds
        return min(self.stall_seconds, self.stall_seconds + moved / self.bytes_per_second - elapsed)


@contextlib.asynccontextmanager
async def supervised_sending(request: web.Request, rule: MinimumThroughput) -> AsyncIterator[None]:
    """Abort the connection of a client that reads the response too slowly; raises ConnectionResetError.

    Progress is measured in acknowledged bytes: the kernel accepts more data only once a third of its send buffer is
    free, which takes a slow client longer than `stall_seconds`.
    """
    loop, seconds = asyncio.get_running_loop(), rule.stall_seconds
    start, first = loop.time(), _acknowledged(request)
    last, timer = first, loop.call_later(seconds, lambda: check())

    def check() -> None:
        nonlocal last, timer
        before, last = last, _acknowledged(request)
        if last == before or rule.seconds_left(last - first, loop.time() - start) <= 0:
            limit.reschedule(loop.time())
        else:
            timer = loop.call_later(seconds, check)

    try:
        async with asyncio.timeout(None) as limit:
            yield
    except TimeoutError:
        if request.transport:
            request.transport.abort()
        raise ConnectionResetError("the client reads too slowly") from None
    finally:
        timer.cancel()


def _acknowledged(request: web.Request) -> int:
    """Bytes that the client has acknowledged: `tcpi_bytes_acked` of linux/tcp.h (Linux 4.1); 0 once disconnected."""
    connection = request.get_extra_info("socket")
    try:
        info: bytes = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128) if connection else b""
    except OSError:
        info = b""
    return int.from_bytes(info[120:128], sys.byteorder)
