"""Reading requests: status, the wait for an end, and events, whichever process runs them."""

from collections.abc import AsyncGenerator, AsyncIterator

from service.callers import Caller
from service.errors import Draining, NotFound, StillRunning
from service.jobs.changes import Changes, wait_for
from service.ledger.ledger import Ledger
from service.ledger.rows import CallRow, EventRow, RequestRow

Found = tuple[RequestRow, list[CallRow]]


class RequestReader:
    """Reads requests from the ledger. Waiting for a change is woken in this process, and polls for other processes."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._changes = Changes()
        self._draining = False

    async def get(self, request_id: str, caller: Caller) -> Found:
        """A request and its calls; raises NotFound, also for a request of another caller."""
        found = await self.ledger.request(request_id)
        if found is None or not (caller.sees_all or found[0].principal in caller.principals):
            raise NotFound("there is no such request")
        return found

    async def delete(self, request_id: str, caller: Caller) -> Found:
        """Blank a request that has ended, and return what it was; raises NotFound, StillRunning."""
        request, calls = await self.get(request_id, caller)
        if request.finished is None:
            raise StillRunning("the request is still running: cancel it, or wait for its end")
        await self.ledger.delete(request_id)
        return request, calls

    async def ended(self, request_id: str, caller: Caller) -> Found:
        """Wait for the end of a request; raises NotFound, and Draining when this process is about to end."""
        while True:
            with self._changes.watching(request_id) as changed:
                if await self.has_ended(request_id, caller):
                    return await self.get(request_id, caller)
                await wait_for(changed)

    async def has_ended(self, request_id: str, caller: Caller) -> bool:
        """Whether a request has ended; raises NotFound, and Draining if this process will not see its end."""
        request, _ = await self.get(request_id, caller)
        if request.finished is None and self._draining and not self._runs(request_id):
            raise Draining("the service is shutting down; its next start continues the request")
        return request.finished is not None

    async def changes(self, request_id: str, heartbeat: float) -> AsyncGenerator[bool, None]:
        """True at once, and whenever the request may have changed; False when it did not for `heartbeat` seconds."""
        with self._changes.watching(request_id) as changed:
            quiet = 0.0
            while True:
                changed.clear()
                yield True
                quiet += await wait_for(changed, heartbeat - quiet)
                if changed.is_set():
                    quiet = 0.0
                elif quiet >= heartbeat:
                    yield False
                    quiet = 0.0

    def _runs(self, request_id: str) -> bool:
        """Whether this process works on the request."""
        return False

    async def events(self, request_id: str, after: int, heartbeat: float) -> AsyncIterator[EventRow | None]:
        """The events after number `after` as they are written, until the request has ended or the service drains.

        Yields None whenever there was no event for `heartbeat` seconds.
        """
        quiet = 0.0
        while not self._draining:
            with self._changes.watching(request_id) as changed:
                rows = await self.ledger.events(request_id, after)
                for row in rows:
                    yield row
                    after, quiet = row.sequence, 0.0
                if rows:
                    continue
                found = await self.ledger.request(request_id)
                if found is None or (found[0].finished is not None and found[0].last_event <= after):
                    return
                quiet += await wait_for(changed, heartbeat - quiet)
                if quiet >= heartbeat:
                    yield None
                    quiet = 0.0
