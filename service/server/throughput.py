"""Minimum throughput: a transfer that stops, or is too slow on average, is given up."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import web


@dataclass(frozen=True, slots=True)
class MinimumThroughput:
    """Progress within every `stall_seconds`, and an average of `bytes_per_second` beyond the first of them.

    The average is reckoned as by Apache's mod_reqtimeout (`body=30,MinRate=10240`): a transfer may take
    `stall_seconds`, and a second more for every `bytes_per_second` bytes. With 0 there is no average to keep.
    """

    stall_seconds: float
    bytes_per_second: int

    def seconds_left(self, moved: int, elapsed: float) -> float:
        """How long a transfer that moved so many bytes in so many seconds may go on without another byte."""
        if not self.bytes_per_second:
            return self.stall_seconds
        return min(self.stall_seconds, self.stall_seconds + moved / self.bytes_per_second - elapsed)


@contextlib.asynccontextmanager
async def supervised_sending(request: web.Request, rule: MinimumThroughput) -> AsyncIterator[None]:
    """Abort the connection of a client that takes its answer too slowly; raises ConnectionResetError.

    Progress is what the client has acknowledged: the kernel accepts more to send only when a third of its buffer has
    left, and for a slow client that takes longer than `stall_seconds`.
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
    """Bytes that the peer has acknowledged: `tcpi_bytes_acked` of linux/tcp.h (Linux 4.1); 0 when it is gone."""
    connection = request.get_extra_info("socket")
    try:
        info: bytes = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128) if connection else b""
    except OSError:
        info = b""
    return int.from_bytes(info[120:128], sys.byteorder)
