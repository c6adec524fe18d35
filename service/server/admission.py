"""Admission control: where a request is refused for want of capacity, and never a paid picture."""

import asyncio
import math
from typing import Literal, Self

from service.errors import Busy, Draining, StorageFull
from service.server.bodies import Bodies, Body
from service.server.throughput import MinimumThroughput
from service.settings import MIB, Settings
from service.store.local import LocalStore

# What one variation needs with room to spare: its raw, the reference, and three exports of up to 4K.
VARIATION_BYTES = 64 * MIB
# How long a measured free space is good for, less what was written since: a look at the disk costs a thread.
FRESH_SECONDS = 0.25

Kind = Literal["thumbnails", "exports", "download"]


class Ticket:
    """One request's place and its disk reservation; given back once, when it leaves.

    A context that leaves at its end, unless it was `lent` to work that outlives the handler and leaves itself.
    """

    __slots__ = ("_admission", "kind", "lent", "reserved")

    def __init__(self, admission: "Admission", kind: Kind) -> None:
        self._admission = admission
        self.kind = kind
        self.reserved = 0
        self.lent = False

    def leave(self) -> None:
        self._admission.leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.lent:
            self.leave()


class Admission:
    """Counts the requests at work, their disk reservations, and the bodies being read. `draining`: nobody comes in.

    A form passes twice: `check` before its body is read, which takes nothing, and `enter` when its body is there.
    """

    def __init__(self, settings: Settings, store: LocalStore) -> None:
        self._store = store
        self._limits: dict[Kind, int] = {
            "thumbnails": settings.max_requests,
            "exports": min(settings.max_requests, settings.export_workers + settings.max_pending_exports),
            "download": settings.max_downloads,
        }
        self._max_requests = settings.max_requests
        rule = MinimumThroughput(settings.upload_stall_seconds, settings.upload_min_bytes_per_second)
        self.bodies = Bodies(settings.max_requests, rule)
        self.inside: dict[Kind, int] = dict.fromkeys(self._limits, 0)
        self.reserved = 0
        self.draining = False
        self._free, self._fresh_until = 0, -math.inf
        self._probing: asyncio.Future[int] | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    async def check(self, kind: Kind) -> None:
        """Raises what `enter` would raise now."""
        self._check_place(kind)
        self.check_space(VARIATION_BYTES, await self._probe())
        # Meanwhile the drain may have begun, which ends every body that is being read: this one would be missed.
        self._check_place(kind)

    async def enter(self, kind: Kind, variations: int = 1) -> Ticket:
        """A place, and disk space for so many variations.

        Raises what `admit` raises, StorageUnavailable and StorageFull; costs nothing when refused.
        """
        ticket = self.admit(kind)
        try:
            self.check_space(variations * VARIATION_BYTES, await self._probe())
        except BaseException:
            ticket.leave()
            raise
        ticket.reserved = variations * VARIATION_BYTES
        self.reserved += ticket.reserved
        return ticket

    async def _probe(self) -> int:
        """The free space of a storage that can be written. One look at the disk serves all who come meanwhile."""
        if self._probing is None or self._probing.done():
            self._probing = asyncio.ensure_future(self._store.probe())
        return await asyncio.shield(self._probing)

    def admit(self, kind: Kind) -> Ticket:
        """A place alone, for what needs no room on the disk; raises Draining and Busy."""
        self._check_place(kind)
        self.inside[kind] += 1
        self._empty.clear()
        return Ticket(self, kind)

    def _check_place(self, kind: Kind) -> None:
        if self.draining:
            raise self._draining()
        working = self.inside["thumbnails"] + self.inside["exports"]
        if self.inside[kind] >= self._limits[kind] or (kind != "download" and working >= self._max_requests):
            raise Busy(f"no room for more {kind} now")

    def leave(self, ticket: Ticket) -> None:
        self.inside[ticket.kind] -= 1
        self.reserved -= ticket.reserved
        if not any(self.inside.values()):
            self._empty.set()

    def check_space(self, wanted: int, free: int) -> None:
        """Raise StorageFull unless so much is free beside what others reserved."""
        if free - self.reserved < wanted:
            missing = math.ceil((wanted + self.reserved - free) / MIB)
            raise StorageFull(f"the storage lacks {missing} MiB for this request")

    async def spool(self, body: Body, count: int) -> None:
        """Before a body writes `count` bytes: what is being read holds at most half of the space that is not reserved.

        So uploads that may never end cannot take the space of admitted requests. Others give way, see `Bodies.spool`.
        """
        loop = asyncio.get_running_loop()
        if loop.time() > self._fresh_until:
            self._free, self._fresh_until = await self._store.free_bytes(), loop.time() + FRESH_SECONDS
        unreserved = self._free - self.reserved + self.bodies.spooled
        self._free += self.bodies.spool(body, count, unreserved // 2) - count

    def drain(self) -> None:
        """Let nobody in any more, and end the bodies that are being read."""
        self.draining = True
        self.bodies.interrupt(self._draining())

    @staticmethod
    def _draining() -> Draining:
        return Draining("the service is shutting down")

    async def emptied(self) -> None:
        """Wait until nobody is inside."""
        await self._empty.wait()
