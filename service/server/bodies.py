"""Request bodies being read: bounded in number and bytes; beyond the bounds the slowest is ended with a 408."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import ClientPayloadError, StreamReader, web
from aiohttp.http_exceptions import BadHttpMessage

from service.errors import BodyTimeout, Busy, MalformedBody, ServiceError, StorageFull
from service.server.throughput import MinimumThroughput

# Seconds until a retry is worthwhile.
RETRY_AFTER = {"Retry-After": "5"}
# Grace period before a body may be ended as slow; its rate is averaged over at least this long.
GRACE_SECONDS = 1.0
# The share of it that is always left: refusing clients as fast as they reconnect would take all CPU.
SHORTEST_GRACE = 0.3
# Of fields, which are kept in memory until the body is complete: a thousand clients with 1 MiB each must not fill it.
MAX_BUFFERED_BYTES = 128 * 1024 * 1024
POLL_SECONDS = 0.02
# The rate below which a body is slow if UPLOAD_MIN_BYTES_PER_SECOND is 0.
SLOW_BYTES_PER_SECOND = 10_240


class Body:
    """A request body being read."""

    def __init__(self, stream: StreamReader, rule: MinimumThroughput) -> None:
        self._stream = stream
        self._rule = rule
        self._waited = 0.0
        self._waiting_since: float | None = None
        self._scope: asyncio.Timeout | None = None
        self._interruption: ServiceError | None = None
        # Bytes written to uploads/, and those kept in memory.
        self.spooled = 0
        self.buffered = 0

    async def read(self) -> bytes:
        """The next bytes, empty at the end; raises BodyTimeout and MalformedBody."""
        left = self._rule.seconds_left(self._stream.total_bytes, self._waited)
        self._waiting_since = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(left):
                return await self._stream.readany()
        except TimeoutError:
            raise self._too_slow(left) from None
        except (ClientPayloadError, BadHttpMessage, web.RequestPayloadError):
            raise MalformedBody("the body's transfer encoding is broken") from None
        finally:
            self._waited, self._waiting_since = self.waited(), None

    def _too_slow(self, left: float) -> BodyTimeout:
        if left < self._rule.stall_seconds:
            return BodyTimeout(f"the body came at less than {self._rule.bytes_per_second} bytes a second")
        return BodyTimeout(f"no byte of the body came for {left:g} seconds")

    def waited(self) -> float:
        """Seconds spent waiting for the client, without those that our own disk took."""
        if self._waiting_since is None:
            return self._waited
        return self._waited + asyncio.get_running_loop().time() - self._waiting_since

    @property
    def complete(self) -> bool:
        """Whether all of it was received."""
        return self._stream.is_eof()

    def rate(self) -> float:
        """Average bytes per second, over at least GRACE_SECONDS."""
        return self._stream.total_bytes / max(self.waited(), GRACE_SECONDS)

    @contextlib.asynccontextmanager
    async def interruptible(self) -> AsyncIterator[None]:
        """A context in which `interrupt` raises its error."""
        try:
            async with asyncio.timeout(None) as self._scope:
                yield
        except TimeoutError:
            if self._interruption is None:
                raise
            raise self._interruption from None
        finally:
            self._scope = None

    def interrupt(self, error: ServiceError) -> None:
        """Raise `error` in the task that reads the body."""
        if self._scope and not self._interruption:
            self._interruption = error
            self._scope.reschedule(asyncio.get_running_loop().time())


class Bodies:
    """The bodies being read, at most `limit`, and those that wait for their turn."""

    def __init__(self, limit: int, rule: MinimumThroughput) -> None:
        self._limit = limit
        self._rule = rule
        # In order of arrival.
        self._waiting: dict[Body, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._reading: set[Body] = set()
        self.spooled = 0
        self.buffered = 0

    def __len__(self) -> int:
        return len(self._reading)

    @contextlib.asynccontextmanager
    async def reading(self, stream: StreamReader) -> AsyncIterator[Body]:
        """Wait for a turn and yield the body; raises Busy, BodyTimeout when ended as slow, and Draining."""
        body = Body(stream, self._rule)
        try:
            async with body.interruptible():
                await self._turn(body)
                yield body
        finally:
            self._leave(body)

    async def _turn(self, body: Body) -> None:
        """Wait until the body may be read."""
        turn = self._waiting[body] = asyncio.get_running_loop().create_future()
        if body.complete:
            self._begin(body)
        elif self._timer is None:
            self._start_waiting()
        try:
            async with asyncio.timeout(self._rule.stall_seconds):
                await turn
        except TimeoutError:
            raise Busy("too many request bodies are being read") from None
        finally:
            self._waiting.pop(body, None)

    def _start_waiting(self) -> None:
        """Start reading as many as the limit allows; polls while some wait. Complete bodies do not count."""
        for body in [body for body in self._waiting if body.complete]:
            self._begin(body)
        if len(self._reading) >= self._limit:
            self.end_slowest(len(self._waiting))
        while self._waiting and len(self._reading) < self._limit:
            self._begin(next(iter(self._waiting)))
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(POLL_SECONDS, self._start_waiting) if self._waiting else None

    def _begin(self, body: Body) -> None:
        turn = self._waiting.pop(body)
        # It is done if the request was cancelled a moment ago.
        if not turn.done():
            self._reading.add(body)
            turn.set_result(None)

    def end_slowest(self, wanted: int) -> None:
        """End up to `wanted` slow bodies, or the slowest one if none is slow, after a grace period.

        The more places are wanted, the shorter the period, down to SHORTEST_GRACE of it.
        """
        grace = GRACE_SECONDS * max(SHORTEST_GRACE, self._limit / (self._limit + wanted))
        slowest = sorted(self._reading, key=_rank)
        least = self._rule.bytes_per_second or SLOW_BYTES_PER_SECOND
        # While slow ones are in their grace period, no other is ended in their place.
        candidates = [body for body in slowest if body.rate() < least] or slowest[:1]
        for body in [body for body in candidates if body.waited() >= grace][:wanted]:
            self._end(body)

    def spool(self, body: Body, count: int, most: int) -> int:
        """Account for bytes that a body is about to write to uploads/, where all bodies may hold `most` together.

        Beyond that the slowest are ended; returns how many bytes that frees. Raises StorageFull if this is the slowest.
        """
        if body not in self._reading:
            return 0
        body.spooled += count
        self.spooled += count
        before = self.spooled
        while self.spooled > most:
            slowest = min((other for other in self._reading if other.spooled), key=_rank)
            if slowest is body:
                raise StorageFull("the disk has no space for more uploads now")
            self._end(slowest)
        return before - self.spooled

    def buffer(self, body: Body, count: int) -> None:
        """Account for bytes of a body that are kept in memory.

        Beyond MAX_BUFFERED_BYTES of all bodies the slowest are ended; raises Busy if this is the slowest.
        """
        if body not in self._reading:
            return
        body.buffered += count
        self.buffered += count
        while self.buffered > MAX_BUFFERED_BYTES:
            slowest = min((other for other in self._reading if other.buffered), key=_rank)
            if slowest is body:
                raise Busy("too many large bodies are being read")
            self._end(slowest)

    def _end(self, body: Body) -> None:
        self._leave(body)
        body.interrupt(BodyTimeout("too many bodies are being sent, and this one was the slowest", headers=RETRY_AFTER))

    def _leave(self, body: Body) -> None:
        if body in self._reading:
            self._reading.remove(body)
            self.spooled -= body.spooled
            self.buffered -= body.buffered

    def interrupt(self, error: ServiceError) -> None:
        """Interrupt all bodies, also those waiting for their turn."""
        for body in [*self._waiting, *self._reading]:
            self._leave(body)
            body.interrupt(error)


def _rank(body: Body) -> tuple[float, float]:
    """Sort key: the lowest average rate first; of equal rates, the body waited for longest."""
    return body.rate(), -body.waited()
