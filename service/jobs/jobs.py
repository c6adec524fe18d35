"""Runs requests: opens them in the ledger, makes their calls, cancels them, and records how they end."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from service.bases import SharedBase
from service.callers import KEY_NAME, Caller
from service.errors import Deleted, IdempotencyMismatch, ServiceError, StorageFull, StorageUnavailable, UnpricedModel
from service.gemini.costs import Pricing
from service.jobs.beginnings import Beginnings
from service.jobs.job import Job, Submission
from service.jobs.later import LaterWrites, keep_task
from service.jobs.reading import Found, RequestReader
from service.jobs.record import CANCELLED, LedgerRecord
from service.ledger.ledger import Ledger
from service.ledger.rows import CallRow, RequestRow
from service.ledger.steps import CallId, Failure, NewRequest, Opened
from service.orders import Event, Failed, Order, Raw, Start, Variation
from service.store.layout import export_stem
from service.stored import StoredBase, error_to_json, order_to_json
from service.thumbnails import ThumbnailService
from service.variations import EMULATOR_MODEL

log = logging.getLogger(__name__)

# Requests written to the ledger at a time, first come, first served: the first of a burst is sent before the last is
# written. More than one, since all that wait for the ledger share a commit.
OPENING = 32

OnEvent = Callable[[Event], None]
OnEnd = Callable[[], None]


class JobService(RequestReader):
    """Runs requests as tasks of their own, and records each step in the ledger.

    `emulated`: the calls go to the emulator, not to Gemini; `budget`: BUDGET_USD_PER_DAY is set.
    """

    def __init__(self, ledger: Ledger, thumbnails: ThumbnailService, *, emulated: bool, budget: bool) -> None:
        super().__init__(ledger)
        self.backend = EMULATOR_MODEL if emulated else "gemini"
        self._thumbnails = thumbnails
        self._emulated = emulated
        self._budget = budget
        self._jobs: dict[str, Job] = {}
        self._opening = asyncio.Semaphore(OPENING)
        self._ending: set[asyncio.Task[None]] = set()
        self._beginnings = Beginnings()
        self._later = LaterWrites()

    def _runs(self, request_id: str) -> bool:
        return request_id in self._jobs

    def pricing(self, order: Order) -> Pricing:
        model = EMULATOR_MODEL if self._emulated else self._thumbnails.model(order)
        return Pricing(model, order.image_size, self._emulated)

    def checked(self, order: Order) -> contextlib.AbstractAsyncContextManager[SharedBase | None]:
        """The order's base after its check."""
        return self._thumbnails.checked(order)

    # Start

    def beginning(self, submission: Submission) -> contextlib.AbstractAsyncContextManager[None]:
        """To be held from when the body is known until `begin` has returned, so that retries find this request."""
        return self._beginnings.beginning(submission)

    async def find(self, submission: Submission) -> RequestRow | None:
        """The request that holds the idempotency key, or that an automatic retry without a key repeats.

        Raises IdempotencyMismatch and Deleted.
        """
        if submission.idempotency_key is None:
            if not submission.retries:
                return None
            return await self.ledger.join(submission.caller.principals, submission.route, submission.fingerprint)
        holder = await self.ledger.holder(submission.caller.principals, submission.route, submission.idempotency_key)
        return _same_body(holder, submission) if holder else None

    async def begin(
        self,
        order: Order,
        submission: Submission,
        upload: str | None,
        base: SharedBase | None = None,
        *,
        on_new: Callable[[], None] = lambda: None,
        on_end: OnEnd = lambda: None,
        on_event: OnEvent = lambda event: None,
    ) -> tuple[RequestRow, Job | None]:
        """Write a request before anything is spent and run it; or return the one that it repeats, without a job.

        `on_new` is called before the calls of a new request begin, `on_end` after the last of them has ended. Raises
        IdempotencyMismatch, Deleted, UnpricedModel, BudgetExhausted, StorageFull, StorageUnavailable.
        """
        beginning = asyncio.create_task(self._begin(order, submission, upload, base, on_new, on_end, on_event))
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            # The row may be durable already: without a job it would hold its key and its reservation for ever.
            await asyncio.wait([beginning])
            job = None if beginning.cancelled() or beginning.exception() else beginning.result()[1]
            if job and not submission.outlives_client:
                job.abandon()
            raise

    async def _begin(
        self,
        order: Order,
        submission: Submission,
        upload: str | None,
        base: SharedBase | None,
        on_new: Callable[[], None],
        on_end: OnEnd,
        on_event: OnEvent,
    ) -> tuple[RequestRow, Job | None]:
        async with self._opening:
            opened = await self._open(order, submission, upload)
        if not opened.is_new:
            return _same_body(opened.request, submission), None
        on_new()
        calls = [(call, None) for call in opened.calls]
        return opened.request, self.run(order, submission, calls, base, on_end, on_event)

    async def _open(self, order: Order, submission: Submission, upload: str | None) -> Opened:
        pricing = self.pricing(order)
        caller = submission.caller
        if pricing.list_price is None and (self._budget or caller.limits.budget is not None):
            raise UnpricedModel(f"{pricing.model} has no price in the table, and a budget is set")
        base = order.base
        stored = StoredBase(upload, base.sha256, base.size, base.format) if base else None
        return await self.ledger.open(
            NewRequest(
                id=order.request_id,
                principal=caller.principal,
                formerly=caller.formerly,
                budget=caller.limits.budget,
                route=submission.route,
                fingerprint=submission.fingerprint,
                mode=submission.mode,
                backend=self.backend,
                spec=order_to_json(order, stored),
                upload=upload,
                model=pricing.model,
                image_size=order.image_size,
                stems=[export_stem() for _ in range(order.count)],
                list_price=pricing.list_price,
                idempotency_key=submission.idempotency_key,
                joins=submission.retries,
            )
        )

    # Run

    def run(
        self,
        order: Order,
        submission: Submission,
        calls: Sequence[tuple[CallRow, Raw | None]],
        base: SharedBase | None = None,
        on_end: OnEnd = lambda: None,
        on_event: OnEvent = lambda event: None,
    ) -> Job:
        """Run these calls of a request that is open, each with the raw that it has already, or None."""
        pricing = self.pricing(order)
        records = {call.number: self._record(call, pricing) for call, _ in calls}
        job = self._jobs[order.request_id] = Job(order.request_id, submission, records)
        starts = [Start(call.number, records[call.number], raw) for call, raw in calls]
        if base:
            # The caller's own use of it may end before the work begins.
            base.take()

        def end() -> None:
            keep_task(self._ending, self._end(job, on_end, base))

        events = self._thumbnails.generate(order, end, base, starts)
        job.task = asyncio.create_task(self._collect(job, events, on_event))
        # A task that is cancelled before its first step never runs, and then the events have no end either.
        job.task.add_done_callback(lambda _: None if job.begun else end())
        return job

    async def _collect(self, job: Job, events: AsyncGenerator[Event, None], on_event: OnEvent) -> None:
        job.begun = True
        # Recovery runs requests outside of their clients' contexts.
        KEY_NAME.set(job.submission.caller.name)
        try:
            async with aclosing(events):
                async for event in events:
                    on_event(event)
                    if isinstance(event, Variation | Failed):
                        job.outcomes.append(event)
                        self._changes.wake(job.request_id)
        except ServiceError as error:
            job.error = error

    def _record(self, call: CallRow, pricing: Pricing) -> LedgerRecord:
        def changed() -> None:
            self._changes.wake(call.request_id)

        return LedgerRecord(self.ledger, CallId.of(call), call.stem, pricing, changed, self._later.add)

    async def _end(self, job: Job, on_end: OnEnd, base: SharedBase | None) -> None:
        """Record the calls that were not sent, then release what the job holds."""
        if job.task:
            await asyncio.wait([job.task])
        try:
            for record in job.records.values():
                if not record.keep_planned:
                    await self._record_unsent(record.call, job.error)
        finally:
            if base:
                await base.leave()
            del self._jobs[job.request_id]
            job.ended.set()
            self._changes.wake(job.request_id)
            on_end()

    async def _record_unsent(self, call: CallId, error: ServiceError | None) -> None:
        async def write() -> None:
            if error:
                await self.ledger.fail(call, Failure(error_to_json(error), billed=False))
            else:
                await self.ledger.cancel_own(call, CANCELLED)

        try:
            await write()
        except (StorageFull, StorageUnavailable) as refused:
            log.warning("a call that was not sent is not recorded yet: %s", refused.detail)
            self._later.add(write)

    def delivered(self, request_id: str) -> None:
        """Note that a client received the answer in whole; retries with the same body rather repeat others."""
        keep_task(self._ending, self._deliver(request_id))

    async def _deliver(self, request_id: str) -> None:
        try:
            await self.ledger.deliver(request_id)
        except (StorageFull, StorageUnavailable) as error:
            log.warning("%s: its delivery is not noted: %s", request_id, error.detail)

    # Stop

    async def cancel(self, request_id: str, caller: Caller) -> Found:
        """Cancel the calls that were not sent; returns the request as it is then. Raises NotFound."""
        request, calls = await self.get(request_id, caller)
        if request.finished is None:
            await self.ledger.mark_cancelled(request_id)
            for call in calls:
                await self.ledger.cancel(CallId.of(call), CANCELLED)
            if job := self._jobs.get(request_id):
                job.abandon()
            self._changes.wake(request_id)
        return await self.get(request_id, caller)

    def drain(self) -> None:
        """End all streams of events, and send nothing more of asynchronous requests: it waits for the next start."""
        self._draining = True
        self._changes.wake_all()
        for job in list(self._jobs.values()):
            if job.submission.mode == "async":
                for record in job.records.values():
                    record.keep_planned = True
                job.abandon()

    @property
    def running(self) -> int:
        """How many requests run in this process."""
        return len(self._jobs)

    async def finished(self) -> None:
        """Wait for the end of all requests that run in this process."""
        while self._jobs:
            await next(iter(self._jobs.values())).ended.wait()

    async def close(self) -> None:
        """Wait until the ends of jobs are recorded; what the ledger still refuses is left to recovery."""
        if self._ending:
            await asyncio.wait(self._ending)
        await self._later.close()


def _same_body(holder: RequestRow, submission: Submission) -> RequestRow:
    """The holder of a key; raises Deleted, and IdempotencyMismatch if its body was another."""
    if holder.deleted:
        raise Deleted("the request of this Idempotency-Key was deleted")
    if holder.fingerprint != submission.fingerprint:
        raise IdempotencyMismatch("the Idempotency-Key was used with another body")
    return holder
