"""The admission: the only place where a request is refused for want of room. A paid picture is never refused."""

import asyncio
import math
from typing import Literal

from service.errors import Busy, Draining, StorageFull
from service.settings import MIB, Settings
from service.store.local import LocalStore

# What one variation needs with room to spare: its raw, the reference, and three exports of up to 4K.
VARIATION_BYTES = 64 * MIB
RETRY_AFTER = {"Retry-After": "5"}

Kind = Literal["thumbnails", "exports", "download"]


class Ticket:
    """One request's place inside; give it back once. It may outlive its handler, with the work it stands for."""

    __slots__ = ("_admission", "kind", "lent", "reserved")

    def __init__(self, admission: "Admission", kind: Kind) -> None:
        self._admission = admission
        self.kind = kind
        self.reserved = 0
        self.lent = False

    async def reserve(self, variations: int) -> None:
        """Set disk space aside for so many variations; raises StorageFull."""
        self.take(variations, await self._admission.free_bytes())

    def take(self, variations: int, free: int) -> None:
        """The same where the disk's free bytes are known."""
        more = variations * VARIATION_BYTES - self.reserved
        self._admission.check_space(more, free)
        self._admission.reserved += more
        self.reserved += more

    def leave(self) -> None:
        self._admission.leave(self)


class Admission:
    """Counts who is inside. `draining`: nobody new comes in."""

    def __init__(self, settings: Settings, store: LocalStore) -> None:
        self._store = store
        self._limits: dict[Kind, int] = {
            "thumbnails": settings.max_requests,
            "exports": min(settings.max_requests, settings.export_workers + settings.max_pending_exports),
            "download": settings.max_downloads,
        }
        self._max_requests = settings.max_requests
        self.inside: dict[Kind, int] = dict.fromkeys(self._limits, 0)
        self.reserved = 0
        self.draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    async def enter(self, kind: Kind) -> Ticket:
        """Raises what `admit` raises, StorageUnavailable and StorageFull; costs nothing when refused."""
        ticket = self.admit(kind)
        try:
            ticket.take(1, await self._store.probe())
        except BaseException:
            ticket.leave()
            raise
        return ticket

    def admit(self, kind: Kind) -> Ticket:
        """A place alone, for what needs no room on the disk; raises Draining and Busy."""
        if self.draining:
            raise Draining("the service is shutting down", headers=RETRY_AFTER)
        working = self.inside["thumbnails"] + self.inside["exports"]
        if self.inside[kind] >= self._limits[kind] or (kind != "download" and working >= self._max_requests):
            raise Busy(f"no room for more {kind} now", headers=RETRY_AFTER)
        self.inside[kind] += 1
        self._empty.clear()
        return Ticket(self, kind)

    def leave(self, ticket: Ticket) -> None:
        self.inside[ticket.kind] -= 1
        self.reserved -= ticket.reserved
        if not any(self.inside.values()):
            self._empty.set()

    async def free_bytes(self) -> int:
        return await self._store.free_bytes()

    def check_space(self, wanted: int, free: int) -> None:
        """Raise StorageFull unless so much is free beside what others reserved."""
        if free - self.reserved < wanted:
            missing = math.ceil((wanted + self.reserved - free) / MIB)
            raise StorageFull(f"the storage lacks {missing} MiB for this request", headers=RETRY_AFTER)

    async def emptied(self) -> None:
        """Wait until nobody is inside."""
        await self._empty.wait()
