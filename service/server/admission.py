"""Admission control: requests are refused here for lack of capacity, before anything is spent."""

import asyncio
import contextlib
import math
from collections.abc import Iterator
from typing import Literal, Self

from service.errors import Busy, Draining, StorageFull
from service.server.bodies import Bodies, Body
from service.server.throughput import MinimumThroughput
from service.settings import MIB, Settings
from service.store.local import LocalStore

# Disk space reserved per variation: ample for its raw, the reference, and three exports of up to 4K.
VARIATION_BYTES = 64 * MIB
# How long measured free space, less what was written since, is used: measuring it takes a thread.
FRESH_SECONDS = 0.25

Kind = Literal["thumbnails", "exports", "download"]
_PLURAL: dict[Kind, str] = {"thumbnails": "thumbnail requests", "exports": "export requests", "download": "downloads"}


class Ticket:
    """The place and the disk reservation of an admitted request.

    A context manager that releases both, unless `handed_over`: then work that outlives the handler calls `leave`.
    """

    __slots__ = ("_admission", "handed_over", "kind", "reserved")

    def __init__(self, admission: "Admission", kind: Kind) -> None:
        self._admission = admission
        self.kind = kind
        self.reserved = 0
        self.handed_over = False

    def leave(self) -> None:
        """Release place and reservation; to be called once."""
        self._admission.leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.handed_over:
            self.leave()


class Admission:
    """Counts admitted requests, their disk reservations, and the bodies being read; refuses all while `draining`.

    A form passes twice: `check` before its body is read, which takes no place, and `enter` once the body is complete.
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
        self._answers = 0
        self.draining = False
        self._free, self._fresh_until = 0, -math.inf
        self._probing: asyncio.Future[int] | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    async def check(self, kind: Kind) -> None:
        """Raise what `enter` would raise now, without taking a place."""
        self._check_place(kind)
        self.check_space(VARIATION_BYTES, await self._probe())
        # A drain that began meanwhile has interrupted all bodies being read, which this one is not yet.
        self._check_place(kind)

    async def enter(self, kind: Kind, variations: int = 1) -> Ticket:
        """Take a place, and reserve disk space for `variations` variations.

        Raises Draining, Busy, StorageUnavailable and StorageFull; then nothing is taken.
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
        """Free bytes, after a check that all areas are writable; concurrent callers share one check."""
        if self._probing is None or self._probing.done():
            self._probing = asyncio.ensure_future(self._store.probe())
        return await asyncio.shield(self._probing)

    def admit(self, kind: Kind) -> Ticket:
        """Take a place without disk space, as for a download; raises Draining and Busy."""
        self._check_place(kind)
        self.inside[kind] += 1
        self._empty.clear()
        return Ticket(self, kind)

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Let a drain wait until the answer of a request is sent, which may take longer than its work."""
        self._answers += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._answers -= 1
            self._check_empty()

    def _check_place(self, kind: Kind) -> None:
        if self.draining:
            raise self._draining()
        working = self.inside["thumbnails"] + self.inside["exports"]
        if self.inside[kind] >= self._limits[kind] or (kind != "download" and working >= self._max_requests):
            raise Busy(f"too many {_PLURAL[kind]} are in progress")

    def leave(self, ticket: Ticket) -> None:
        """Release what the ticket holds."""
        self.inside[ticket.kind] -= 1
        self.reserved -= ticket.reserved
        self._check_empty()

    @property
    def unfinished(self) -> int:
        """How many requests are admitted or, where these are more, have an answer that is being sent."""
        return max(sum(self.inside.values()), self._answers)

    def _check_empty(self) -> None:
        if not self.unfinished:
            self._empty.set()

    def check_space(self, wanted: int, free: int) -> None:
        """Raise StorageFull if fewer than `wanted` of the `free` bytes are unreserved."""
        if free - self.reserved < wanted:
            missing = math.ceil((wanted + self.reserved - free) / MIB)
            raise StorageFull(f"the storage lacks {missing} MiB for this request")

    async def spool(self, body: Body, count: int) -> None:
        """Account for `count` bytes that a body is about to write; raises StorageFull.

        Unfinished uploads may take at most half of the unreserved space, so that they cannot take that of admitted
        requests; beyond it the slowest are ended, see `Bodies.spool`.
        """
        loop = asyncio.get_running_loop()
        if loop.time() > self._fresh_until:
            self._free, self._fresh_until = await self._store.free_bytes(), loop.time() + FRESH_SECONDS
        unreserved = self._free - self.reserved + self.bodies.spooled
        self._free += self.bodies.spool(body, count, unreserved // 2) - count

    def drain(self) -> None:
        """Refuse new requests, and interrupt the bodies being read."""
        self.draining = True
        self.bodies.interrupt(self._draining())

    @staticmethod
    def _draining() -> Draining:
        return Draining("the service is shutting down")

    async def emptied(self) -> None:
        """Wait until no admitted request, and no answer to one, is left."""
        await self._empty.wait()
