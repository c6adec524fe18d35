"""Submitting an order and waiting for its outcome, for every route that generates pictures."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from service.error_codes import overall_error
from service.errors import Draining, ServiceError, StorageFull, StorageUnavailable
from service.handlers.links import link_of
from service.handlers.multipart import Form
from service.jobs.job import Job, Submission
from service.ledger.rows import CallRow, RequestRow
from service.orders import Failed, Order, Variation, number_of
from service.schemas.answers import ErrorAnswer, VariationAnswer, error_answer, variation_answer
from service.schemas.status import outcomes
from service.server.admission import Ticket
from service.server.keys import ADMISSION, CALLER, JOBS, ORDER_ID, REQUEST_ID, SETTINGS, THUMBNAILS

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The variations and errors of a request that has ended, by number, and its calls, as far as they are recorded."""

    variations: Mapping[int, VariationAnswer]
    errors: Mapping[int, ServiceError]
    calls: Sequence[CallRow]
    job: Job | None

    @property
    def error(self) -> ServiceError:
        """The error to respond with when there are no variations."""
        if self.errors:
            return overall_error(list(self.errors.values()))
        return (self.job and self.job.error) or Draining("the service is shutting down; nothing was sent")

    def image_size(self, order: Order) -> str:
        """The size that was asked of Gemini: the order's own may differ where this repeats an earlier request."""
        return self.calls[0].image_size if self.calls else order.image_size

    @property
    def error_answers(self) -> list[ErrorAnswer]:
        return [error_answer(Failed(f"var-{number}", self.errors[number])) for number in sorted(self.errors)]


@asynccontextmanager
async def submitted(
    request: web.Request, form: Form, order: Order, submission: Submission
) -> AsyncIterator[tuple[RequestRow, Job | None]]:
    """Admit a request and begin it; if it repeats an earlier one, yield that one, and None for the job.

    A client that disconnects meanwhile cancels it only if it could not find the request again.
    """
    submitting = asyncio.create_task(_submit(request, form, order, submission))
    try:
        ticket, row, job = await asyncio.shield(submitting)
    except asyncio.CancelledError:
        if not submission.outlives_client:
            submitting.cancel()
        await asyncio.wait([submitting])
        if not (submitting.cancelled() or submitting.exception()):
            ticket, _, _ = submitting.result()
            if not ticket.handed_over:
                ticket.leave()
        raise
    with ticket:
        yield row, job


async def _submit(
    request: web.Request, form: Form, order: Order, submission: Submission
) -> tuple[Ticket, RequestRow, Job | None]:
    jobs = request.app[JOBS]
    with ExitStack() as admitted:
        ticket = admitted.enter_context(await request.app[ADMISSION].enter("thumbnails", order.count))
        async with jobs.beginning(submission):
            row, job = await jobs.find(submission), None
            if row is None:
                row, job = await _begin(request, form, order, submission, ticket)
        request[ORDER_ID] = row.id
        if job and row.id != request[REQUEST_ID]:
            log.info("this is request %s", row.id)
        admitted.pop_all()
        return ticket, row, job


async def _begin(
    request: web.Request, form: Form, order: Order, submission: Submission, ticket: Ticket
) -> tuple[RequestRow, Job | None]:
    """Check the base, then begin the request; the job is None if an equal submission was begun meanwhile."""

    def keep() -> None:
        form.keep = ticket.handed_over = True

    jobs, upload = request.app[JOBS], form.keys.get("image")
    async with request.app[THUMBNAILS].checked(order) as base:
        return await jobs.begin(order, submission, upload, base, on_new=keep, on_end=ticket.leave)


async def finish(request: web.Request, row: RequestRow, job: Job | None) -> None:
    """Wait for the end of a request.

    If the client disconnects meanwhile, calls that were not sent are cancelled, unless it can find the request again.
    """
    if job is None:
        await request.app[JOBS].ended(row.id, request[CALLER])
        return
    try:
        await job.ended.wait()
    except asyncio.CancelledError:
        if not job.submission.outlives_client:
            job.abandon()
        raise


async def outcomes_so_far(
    request: web.Request, row: RequestRow, job: Job | None
) -> AsyncGenerator[Outcome | None, None]:
    """The outcome so far whenever it may have changed, and at last in whole; None when it is time for a heartbeat."""
    jobs, heartbeat = request.app[JOBS], request.app[SETTINGS].sse_heartbeat_seconds
    async with aclosing(jobs.changes(row.id, heartbeat)) as changes:
        async for changed in changes:
            if not changed:
                yield None
                continue
            ended = job.ended.is_set() if job else await jobs.has_ended(row.id, request[CALLER])
            yield await outcome_of(request, row.id, job)
            if ended:
                return


async def outcome_of(request: web.Request, request_id: str, job: Job | None) -> Outcome:
    """The outcome of a request, from the ledger and, where that could not record it, from the job."""
    calls = await _recorded(request, request_id, job)
    variations, errors = outcomes(calls, await link_of(request, calls))
    if job:
        _add_unrecorded(job, variations, errors)
    return Outcome(variations, errors, calls, job)


async def _recorded(request: web.Request, request_id: str, job: Job | None) -> list[CallRow]:
    """The calls in the ledger; none of them if it cannot be read, and the job knows their outcomes."""
    try:
        return (await request.app[JOBS].get(request_id, request[CALLER]))[1]
    except (StorageFull, StorageUnavailable):
        if job is None:
            raise
        return []


def _add_unrecorded(job: Job, variations: dict[int, VariationAnswer], errors: dict[int, ServiceError]) -> None:
    """Add the outcomes that the ledger could not record yet."""
    for event in job.outcomes:
        number = number_of(event)
        if number in variations or number in errors:
            continue
        if isinstance(event, Variation):
            variations[number] = variation_answer(event)
        else:
            errors[number] = event.error
