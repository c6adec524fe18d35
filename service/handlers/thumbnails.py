"""POST /api/thumbnails: generates pictures of a script with Gemini, and exports them."""

import asyncio
from collections.abc import Mapping

from aiohttp import hdrs, web

from service.error_codes import overall_error
from service.errors import Draining, ServiceError, StorageFull, StorageUnavailable
from service.handlers.forms import open_form
from service.handlers.links import link_of
from service.handlers.multipart import Form
from service.jobs.job import ROUTE, Job, Submission
from service.ledger.rows import CallRow, Mode, RequestRow
from service.orders import Failed, Order, Variation, number_of
from service.schemas.answers import ErrorAnswer, ThumbnailsAnswer, VariationAnswer, error_answer, variation_answer
from service.schemas.headers import fingerprint, idempotency_key, prefers_async
from service.schemas.requests import THUMBNAIL_FIELDS, read_order
from service.schemas.status import outcomes, status_answer
from service.server.admission import Ticket
from service.server.keys import ADMISSION, CALLER, JOBS, REQUEST_ID, SETTINGS, THUMBNAILS
from service.server.problems import problem
from service.server.sending import answer


async def create_thumbnails(request: web.Request) -> web.StreamResponse:
    """Begin a request, or find the one that holds its Idempotency-Key; answer at its end or, if preferred, at once."""
    key = idempotency_key(request.headers.getall("Idempotency-Key", ()))
    mode: Mode = "async" if prefers_async(request.headers.getall("Prefer", ())) else "sync"
    admission, jobs = request.app[ADMISSION], request.app[JOBS]
    async with open_form(request, texts=THUMBNAIL_FIELDS, files=("image",)) as form:
        order = read_order(form.fields, request.app[SETTINGS], request[REQUEST_ID], form.uploads.get("image"))
        submission = Submission(request[CALLER], mode, key, fingerprint(ROUTE, form.fields.texts, form.uploads))
        with await admission.enter("thumbnails", order.count) as ticket:
            row, job = await jobs.find(submission), None
            if row is None:
                row, job = await _begin(request, form, order, submission, ticket)
            if mode == "sync":
                await (_finish(job) if job else jobs.ended(row.id, submission.caller))
    response = await (_outcome(request, row.id, job) if mode == "sync" else _accepted(request, row.id))
    if job is None:
        response.headers["Idempotency-Replayed"] = "true"
    return response


async def _begin(
    request: web.Request, form: Form, order: Order, submission: Submission, ticket: Ticket
) -> tuple[RequestRow, Job | None]:
    """Check the base, claim the key and begin; without a job, if another request has claimed the key meanwhile."""

    def keep() -> None:
        form.keep = ticket.handed_over = True

    jobs, upload = request.app[JOBS], form.keys.get("image")
    async with request.app[THUMBNAILS].checked(order) as base:
        return await jobs.begin(order, submission, upload, base, on_new=keep, on_end=ticket.leave)


async def _finish(job: Job) -> None:
    """Wait for a job. If the client disconnects meanwhile, the calls that were not sent are cancelled, unless the
    request has a key, by which the client can find it again."""
    try:
        await job.ended.wait()
    except asyncio.CancelledError:
        if not job.submission.outlives_client:
            job.abandon()
        raise


async def _outcome(request: web.Request, request_id: str, job: Job | None) -> web.Response:
    """The outcome of a request, from the ledger and, where that could not record it, from the job."""
    calls = await _recorded(request, request_id, job)
    variations, errors = outcomes(calls, await link_of(request, calls))
    if job:
        _add_unrecorded(job, variations, errors)
    if not variations and not errors:
        raise _unfinished(job)
    if not variations:
        return problem(overall_error(list(errors.values())), request[REQUEST_ID], _answers(errors))
    return answer(
        ThumbnailsAnswer(
            request_id=request_id,
            variations=[variations[number] for number in sorted(variations)],
            errors=_answers(errors),
        )
    )


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


def _unfinished(job: Job | None) -> ServiceError:
    return (job and job.error) or Draining("the service is shutting down; nothing was sent")


def _answers(errors: Mapping[int, ServiceError]) -> list[ErrorAnswer]:
    return [error_answer(Failed(f"var-{number}", errors[number])) for number in sorted(errors)]


async def _accepted(request: web.Request, request_id: str) -> web.Response:
    """202 with the status of the request (RFC 7240, respond-async)."""
    row, calls = await request.app[JOBS].get(request_id, request[CALLER])
    response = answer(status_answer(row, calls, await link_of(request, calls)))
    response.set_status(202)
    location = f"{request.app[SETTINGS].public_url or ''}/api/thumbnails/{request_id}"
    response.headers.update({hdrs.LOCATION: location, "Preference-Applied": "respond-async"})
    return response
