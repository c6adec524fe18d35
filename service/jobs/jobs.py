"""The requests of this process, and what of the ledger's can be asked: opened, run, followed, cancelled."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any

from service.bases import SharedBase
from service.errors import (
    Deleted,
    IdempotencyMismatch,
    NotFound,
    ServiceError,
    StillRunning,
    StorageFull,
    StorageUnavailable,
    UnpricedModel,
)
from service.gemini.costs import Pricing
from service.jobs.changes import Changes, wait_for
from service.jobs.job import ROUTE, Asked, Caller, Job
from service.jobs.record import CANCELLED, LedgerRecord
from service.ledger.ledger import Ledger
from service.ledger.rows import CallRow, EventRow, RequestRow
from service.ledger.steps import CallId, Failure, NewRequest
from service.orders import Event, Failed, Order, Start, Variation
from service.store.layout import export_stem
from service.stored import StoredBase, error_to_json, order_to_json
from service.thumbnails import ThumbnailService
from service.variations import EMULATOR_MODEL

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1.0, 30.0


class JobService:
    """Runs requests and records each step of them. `backend` is `gemini` or `emulator`."""

    def __init__(self, ledger: Ledger, thumbnails: ThumbnailService, *, emulated: bool, budget: bool) -> None:
        self.ledger = ledger
        self.backend = EMULATOR_MODEL if emulated else "gemini"
        self._thumbnails = thumbnails
        self._emulated = emulated
        self._budget = budget
        self._jobs: dict[str, Job] = {}
        self._changes = Changes()
        self._ending: set[asyncio.Task[None]] = set()
        self._retrying: set[asyncio.Task[None]] = set()
        self._draining = False

    # One's own requests

    def pricing(self, order: Order) -> Pricing:
        model = EMULATOR_MODEL if self._emulated else self._thumbnails.model(order)
        return Pricing(model, order.image_size, self._emulated)

    def checked(self, order: Order) -> contextlib.AbstractAsyncContextManager[SharedBase | None]:
        """The order's base after its check."""
        return self._thumbnails.checked(order)

    async def find(self, asked: Asked) -> RequestRow | None:
        """The request that has the key; raises IdempotencyMismatch and Deleted."""
        if asked.idempotency_key is None:
            return None
        holder = await self.ledger.holder(asked.caller.principal, ROUTE, asked.idempotency_key)
        return _same(holder, asked) if holder else None

    async def open(self, order: Order, asked: Asked, upload: str | None) -> tuple[RequestRow, bool]:
        """Write a request before anything is spent. Returns the one that stands for it, and whether it is new.

        Raises IdempotencyMismatch, Deleted, UnpricedModel, BudgetExhausted, StorageFull, StorageUnavailable.
        """
        pricing = self.pricing(order)
        if self._budget and pricing.list_price is None:
            raise UnpricedModel(f"{pricing.model} has no price in the table, and BUDGET_USD_PER_DAY is set")
        base = order.base
        stored = StoredBase(upload, base.sha256, base.size, base.format) if base else None
        opened = await self.ledger.open(
            NewRequest(
                id=order.request_id,
                principal=asked.caller.principal,
                route=ROUTE,
                fingerprint=asked.fingerprint,
                mode=asked.mode,
                backend=self.backend,
                spec=order_to_json(order, stored),
                upload=upload,
                model=pricing.model,
                image_size=order.image_size,
                stems=[export_stem() for _ in range(order.count)],
                list_price=pricing.list_price,
                idempotency_key=asked.idempotency_key,
            )
        )
        return (opened.request if opened.mine else _same(opened.request, asked)), opened.mine

    async def start(
        self,
        order: Order,
        asked: Asked,
        left: Callable[[], None] = lambda: None,
        checked: SharedBase | None = None,
        heard: Callable[[Event], None] = lambda event: None,
    ) -> Job:
        """Run an opened request. `heard` is called with each event, `left` when nothing of it is under way any more."""
        found = await self.ledger.request(order.request_id)
        calls = [call for call in (found[1] if found else []) if call.state == "planned"]
        return self.run(order, asked, [(call, None) for call in calls], left, checked, heard)

    def run(
        self,
        order: Order,
        asked: Asked,
        calls: Sequence[tuple[CallRow, Any]],
        left: Callable[[], None] = lambda: None,
        checked: SharedBase | None = None,
        heard: Callable[[Event], None] = lambda event: None,
    ) -> Job:
        """Run these calls of a request, each with the raw that came before, or None."""
        pricing = self.pricing(order)
        records = {call.number: self._record(call, pricing) for call, _ in calls}
        job = self._jobs[order.request_id] = Job(order.request_id, asked, records)
        starts = [Start(call.number, records[call.number], raw) for call, raw in calls]
        begun = False
        if checked:
            # The caller's own use of it may end before the work begins.
            checked.take()

        def over() -> None:
            _keep(self._ending, self._end(job, left, checked))

        async def read() -> None:
            nonlocal begun
            begun = True
            try:
                async with aclosing(self._thumbnails.generate(order, over, checked, starts)) as events:
                    async for event in events:
                        heard(event)
                        if isinstance(event, Variation | Failed):
                            job.outcomes.append(event)
            except ServiceError as error:
                job.error = error

        def read_ended(_: asyncio.Task[None]) -> None:
            # A task that is cancelled before its first step never runs.
            if not begun:
                over()

        job.task = asyncio.create_task(read())
        job.task.add_done_callback(read_ended)
        return job

    def _record(self, call: CallRow, pricing: Pricing) -> LedgerRecord:
        call_id = CallId(call.request_id, call.number, call.attempt)

        def changed() -> None:
            self._changes.wake(call.request_id)

        return LedgerRecord(self.ledger, call_id, call.stem, pricing, changed, self._write_later)

    async def _end(self, job: Job, left: Callable[[], None], checked: SharedBase | None) -> None:
        """Note the calls that never went out, then let go of the request."""
        if job.task:
            await asyncio.wait([job.task])
        try:
            for record in job.records.values():
                if not record.keep_planned:
                    await self._note_unsent(record.call, job.error)
        except (StorageFull, StorageUnavailable) as error:
            log.warning("calls that were not sent are not noted yet: %s", error.detail)
        finally:
            if checked:
                await checked.leave()
            del self._jobs[job.request_id]
            job.ended.set()
            self._changes.wake(job.request_id)
            left()

    async def _note_unsent(self, call: CallId, error: ServiceError | None) -> None:
        if error:
            await self.ledger.fail(call, Failure(error_to_json(error), billed=False))
        else:
            await self.ledger.cancel(call, CANCELLED)

    def drain(self) -> None:
        """End all streams, and send nothing more for requests that nobody waits for.

        Their planned calls are for the next start.
        """
        self._draining = True
        self._changes.wake_all()
        for job in list(self._jobs.values()):
            if job.asked.mode == "async":
                for record in job.records.values():
                    record.keep_planned = True
                job.abandon()

    async def close(self) -> None:
        """Note the ends of requests whose work has ended, and give up what the ledger refused."""
        for task in self._retrying:
            task.cancel()
        if tasks := self._ending | self._retrying:
            await asyncio.wait(tasks)

    # What can be asked of any request

    async def get(self, request_id: str, caller: Caller) -> tuple[RequestRow, list[CallRow]]:
        """A request and its calls; raises NotFound, also for another caller's."""
        found = await self.ledger.request(request_id)
        if found is None or not (caller.sees_all or found[0].principal == caller.principal):
            raise NotFound("there is no such request")
        return found

    async def cancel(self, request_id: str, caller: Caller) -> tuple[RequestRow, list[CallRow]]:
        """Cancel what was not sent; returns what the request is now."""
        request, calls = await self.get(request_id, caller)
        if request.finished is None:
            await self.ledger.mark_cancelled(request_id)
            for call in calls:
                await self.ledger.cancel(CallId(call.request_id, call.number, call.attempt), CANCELLED)
            if job := self._jobs.get(request_id):
                job.abandon()
            self._changes.wake(request_id)
        return await self.get(request_id, caller)

    async def delete(self, request_id: str, caller: Caller) -> tuple[RequestRow, list[CallRow]]:
        """Blank a request that has ended, and return what it was; raises StillRunning."""
        request, calls = await self.get(request_id, caller)
        if request.finished is None:
            raise StillRunning("the request is still running: cancel it, or wait for its end")
        await self.ledger.delete(request_id)
        return request, calls

    async def ended(self, request_id: str, caller: Caller) -> tuple[RequestRow, list[CallRow]]:
        """Wait for a request's end, whichever process runs it."""
        while True:
            with self._changes.watching(request_id) as changed:
                request, calls = await self.get(request_id, caller)
                if request.finished is not None:
                    return request, calls
                await wait_for(changed)

    async def events(self, request_id: str, after: int, heartbeat: float) -> AsyncIterator[EventRow | None]:
        """The events after number `after` as they come, to the request's end.

        None whenever nothing came for `heartbeat` seconds.
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

    # What could not be written

    def _write_later(self, write: Callable[[], Awaitable[object]]) -> None:
        _keep(self._retrying, _write_until_done(write))


def _keep(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    """Run this beside everything else; a task that nobody keeps may be collected."""
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _same(holder: RequestRow, asked: Asked) -> RequestRow:
    if holder.deleted:
        raise Deleted("the request of this Idempotency-Key was deleted")
    if holder.fingerprint != asked.fingerprint:
        raise IdempotencyMismatch("the Idempotency-Key was used with another body")
    return holder


async def _write_until_done(write: Callable[[], Awaitable[object]]) -> None:
    """Write what the ledger refused, with exponential backoff, for as long as the process lives."""
    pause = FIRST_RETRY_SECONDS
    while True:
        await asyncio.sleep(pause)
        try:
            await write()
        except (StorageFull, StorageUnavailable):
            pause = min(2 * pause, LONGEST_RETRY_SECONDS)
        else:
            return
