"""POST /api/thumbnails: generates pictures of a script with Gemini, and exports them."""

from aiohttp import hdrs, web

from service.handlers.forms import open_form
from service.handlers.links import link_of
from service.handlers.submitting import finish, outcome_of, submitted
from service.jobs.job import ROUTE, Job, Submission
from service.ledger.rows import Mode
from service.schemas.answers import ThumbnailsAnswer
from service.schemas.collecting import Collected
from service.schemas.headers import fingerprint, idempotency_key, prefers_async
from service.schemas.requests import THUMBNAIL_FIELDS, read_order
from service.schemas.status import status_answer
from service.server.keys import CALLER, JOBS, NEW_ID, SETTINGS
from service.server.problems import refusal
from service.server.sending import answer


async def create_thumbnails(request: web.Request) -> web.StreamResponse:
    """Begin a request, or find the one that holds its Idempotency-Key; answer at its end or, if preferred, at once."""
    key = idempotency_key(request.headers.getall("Idempotency-Key", ()))
    mode: Mode = "async" if prefers_async(request.headers.getall("Prefer", ())) else "sync"
    async with open_form(request, Collected(THUMBNAIL_FIELDS, ("image",))) as form:
        caller, base = request[CALLER], form.uploads.get("image")
        order = read_order(form.fields, request.app[SETTINGS], request[NEW_ID], base, caller.limits)
        submission = Submission(caller, mode, key, fingerprint(ROUTE, form.fields.texts, form.uploads))
        async with submitted(request, form, order, submission) as (row, job):
            if mode == "sync":
                await finish(request, row, job)
    response = await (_answer(request, row.id, job) if mode == "sync" else _accepted(request, row.id))
    if job is None:
        response.headers["Idempotency-Replayed"] = "true"
    return response


async def _answer(request: web.Request, request_id: str, job: Job | None) -> web.Response:
    outcome = await outcome_of(request, request_id, job)
    variations, errors = outcome.variations, outcome.error_answers
    if not variations and not errors:
        raise outcome.error
    if not variations:
        return refusal(outcome.error, request, errors)
    ordered = [variations[number] for number in sorted(variations)]
    return answer(ThumbnailsAnswer(request_id=request_id, variations=ordered, errors=errors))


async def _accepted(request: web.Request, request_id: str) -> web.Response:
    """202 with the status of the request (RFC 7240, respond-async)."""
    row, calls = await request.app[JOBS].get(request_id, request[CALLER])
    response = answer(status_answer(row, calls, await link_of(request, calls)))
    response.set_status(202)
    location = f"{request.app[SETTINGS].public_url or ''}/api/thumbnails/{request_id}"
    response.headers.update({hdrs.LOCATION: location, "Preference-Applied": "respond-async"})
    return response
