"""Request bodies being read: their number and their bytes are bounded, and the slowest gives way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import ClientPayloadError, StreamReader, web
from aiohttp.http_exceptions import BadHttpMessage

from service.errors import BodyTimeout, Busy, MalformedBody, ServiceError, StorageFull
from service.server.problems import RETRY_AFTER
from service.server.throughput import MinimumThroughput

# A newcomer is judged by what it sent in its first second, so that none gives way before it could send anything.
GRACE_SECONDS = 1.0
POLL_SECONDS = 0.02
# What counts as slow where UPLOAD_MIN_BYTES_PER_SECOND is off.
SLOW_BYTES_PER_SECOND = 10_240


class Body:
    """One request body while it is read."""

    def __init__(self, stream: StreamReader, rule: MinimumThroughput) -> None:
        self._stream = stream
        self._rule = rule
        self._waited = 0.0
        self._waiting_since: float | None = None
        self._scope: asyncio.Timeout | None = None
        self._interruption: ServiceError | None = None
        # Bytes that it wrote to uploads/.
        self.spooled = 0

    async def read(self) -> bytes:
        """The next bytes, none at the end; raises BodyTimeout and MalformedBody."""
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
        """The seconds that were spent waiting for the client; what our own disk takes is not held against it."""
        if self._waiting_since is None:
            return self._waited
        return self._waited + asyncio.get_running_loop().time() - self._waiting_since

    @property
    def complete(self) -> bool:
        """Whether all of it has come, so that nothing is left to wait for."""
        return self._stream.is_eof()

    def rate(self) -> float:
        """Bytes a second on average, over its first second at least."""
        return self._stream.total_bytes / max(self.waited(), GRACE_SECONDS)

    @contextlib.asynccontextmanager
    async def interruptible(self) -> AsyncIterator[None]:
        """Raise within what `interrupt` was called with."""
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
        if self._scope and not self._interruption:
            self._interruption = error
            self._scope.reschedule(asyncio.get_running_loop().time())


class Bodies:
    """The bodies that are being read, and those that wait for one of them to end or to give way."""

    def __init__(self, limit: int, rule: MinimumThroughput) -> None:
        self._limit = limit
        self._rule = rule
        # In the order they came.
        self._newcomers: dict[Body, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._reading: set[Body] = set()
        self.spooled = 0

    def __len__(self) -> int:
        return len(self._reading)

    @contextlib.asynccontextmanager
    async def reading(self, stream: StreamReader) -> AsyncIterator[Body]:
        """A body to read within; raises Busy, and whatever interrupts it: BodyTimeout or Draining."""
        body = Body(stream, self._rule)
        try:
            async with body.interruptible():
                await self._turn(body)
                yield body
        finally:
            self._leave(body)

    async def _turn(self, body: Body) -> None:
        """Wait until it is this body's turn to be read."""
        turn = self._newcomers[body] = asyncio.get_running_loop().create_future()
        if body.complete:
            self._begin(body)
        elif self._timer is None:
            self._let_in()
        try:
            async with asyncio.timeout(self._rule.stall_seconds):
                await turn
        except TimeoutError:
            raise Busy("as many bodies are being read as may be") from None
        finally:
            self._newcomers.pop(body, None)

    def _let_in(self) -> None:
        """Let newcomers in, and look again soon if some have to wait. Who waits for no byte waits for no turn."""
        for body in [body for body in self._newcomers if body.complete]:
            self._begin(body)
        if len(self._reading) >= self._limit:
            self.end_slowest(len(self._newcomers))
        while self._newcomers and len(self._reading) < self._limit:
            self._begin(next(iter(self._newcomers)))
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(POLL_SECONDS, self._let_in) if self._newcomers else None

    def _begin(self, body: Body) -> None:
        turn = self._newcomers.pop(body)
        # One that was cancelled a moment ago leaves by itself.
        if not turn.done():
            self._reading.add(body)
            turn.set_result(None)

    def end_slowest(self, wanted: int) -> None:
        """End slow bodies to make place for so many others, or one of the others if none is slow.

        Only after a grace period, which is shorter the more are waiting.
        """
        grace = GRACE_SECONDS * self._limit / (self._limit + wanted)
        slowest = sorted(self._reading, key=_rank)
        least = self._rule.bytes_per_second or SLOW_BYTES_PER_SECOND
        # New slow bodies still have their grace: a good one must not be ended in their place.
        candidates = [body for body in slowest if body.rate() < least] or slowest[:1]
        for body in [body for body in candidates if body.waited() >= grace][:wanted]:
            self._end(body)

    def spool(self, body: Body, count: int, most: int) -> int:
        """Count bytes that a body is about to write to uploads/, where all together may hold `most`.

        Beyond that the slowest give way: returns how many bytes are removed with them. Raises StorageFull if this is
        the slowest.
        """
        if body not in self._reading:
            return 0
        body.spooled += count
        self.spooled += count
        all_together = self.spooled
        while self.spooled > most:
            slowest = min((other for other in self._reading if other.spooled), key=_rank)
            if slowest is body:
                raise StorageFull("the disk has no space for more uploads now")
            self._end(slowest)
        return all_together - self.spooled

    def _end(self, body: Body) -> None:
        self._leave(body)
        body.interrupt(BodyTimeout("too many bodies are being sent, and this one came slowest", headers=RETRY_AFTER))

    def _leave(self, body: Body) -> None:
        if body in self._reading:
            self._reading.remove(body)
            self.spooled -= body.spooled

    def interrupt(self, error: ServiceError) -> None:
        """End every body, and every wait for a place among them."""
        for body in [*self._newcomers, *self._reading]:
            self._leave(body)
            body.interrupt(error)


def _rank(body: Body) -> tuple[float, float]:
    """The lowest average rate first; of equal ones, the one that had most time."""
    return body.rate(), -body.waited()
