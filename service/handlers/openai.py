"""The OpenAI images API: POST /v1/images/generations and /v1/images/edits, GET /v1/models and /v1/models/{id}."""

from aiohttp import web

from service.errors import MissingField, NotFound
from service.handlers.embedding import opened, send
from service.handlers.forms import open_form
from service.handlers.links import absolute
from service.handlers.multipart import Form
from service.handlers.openai_stream import stream_images
from service.handlers.submitting import Outcome, finish, outcome_of, submitted
from service.imaging.formats import READABLE
from service.jobs.job import EDITS, GENERATIONS, Job, Submission
from service.ledger.rows import RequestRow
from service.schemas.answers import ExportAnswer
from service.schemas.collecting import Collected
from service.schemas.headers import fingerprint, idempotency_key, is_retry
from service.schemas.media_types import MULTIPART
from service.schemas.openai import ALIASES, FIELDS, LONG, ImageRequest, read_image_request, read_json_fields
from service.schemas.openai_answers import images_answer, model_list, split_at_placeholders
from service.server.keys import ADMISSION, CALLER, JOBS, NEW_ID, SETTINGS
from service.server.problems import refusal
from service.server.queries import read_query
from service.server.receiving import receive_json
from service.server.sending import answer


async def generate_images(request: web.Request) -> web.StreamResponse:
    """Pictures of a prompt."""
    fields = read_json_fields(await receive_json(request))
    return await _create_images(request, Form(fields, {}, {}), GENERATIONS)


async def edit_images(request: web.Request) -> web.StreamResponse:
    """Pictures of a prompt and a picture, which Gemini is sent as the reference, and which is not blended."""
    collected = Collected(FIELDS, ("image",), LONG, ALIASES)
    async with open_form(request, collected, (MULTIPART,)) as form:
        if "image" not in form.uploads:
            raise MissingField(f"image is required: a {READABLE} picture", param="image")
        return await _create_images(request, form, EDITS)


async def _create_images(request: web.Request, form: Form, route: str) -> web.StreamResponse:
    """Begin a request, or find the one that this repeats; answer at its end, and note whether the client got it all."""
    key = idempotency_key(request.headers.getall("Idempotency-Key", ()))
    retries = is_retry(request.headers.getall("X-Stainless-Retry-Count", ()))
    caller, base = request[CALLER], form.uploads.get("image")
    wanted = read_image_request(form.fields, request.app[SETTINGS], request[NEW_ID], base, caller.limits)
    digest = fingerprint(route, form.fields.texts, form.uploads)
    submission = Submission(caller, "sync", key, digest, route, retries)
    with request.app[ADMISSION].answering():
        async with submitted(request, form, wanted.order, submission) as (row, job):
            headers = {} if job else {"Idempotency-Replayed": "true"}
            response = await (_stream if wanted.stream else _answer)(request, wanted, row, job, headers)
    request.app[JOBS].delivered(row.id)
    return response


async def _stream(
    request: web.Request, wanted: ImageRequest, row: RequestRow, job: Job | None, headers: dict[str, str]
) -> web.StreamResponse:
    streamed = await stream_images(request, wanted, row, job, headers)
    return streamed if isinstance(streamed, web.StreamResponse) else await _send_error(request, streamed, headers)


async def _answer(
    request: web.Request, wanted: ImageRequest, row: RequestRow, job: Job | None, headers: dict[str, str]
) -> web.StreamResponse:
    """Send all pictures at the end, or the error if there are none."""
    await finish(request, row, job)
    outcome = await outcome_of(request, row.id, job)
    if not outcome.variations:
        return await _send_error(request, outcome, headers)
    variations = [outcome.variations[number] for number in sorted(outcome.variations)]
    exports = [variation.exports[wanted.format] for variation in variations]
    links = [_link(request, export) for export in exports] if wanted.as_links else None
    body = images_answer(variations, wanted.format, outcome.image_size(wanted.order), row.created, links)
    if links:
        return await _send(request, answer(body), headers)
    async with opened(request, exports) as files:
        return await send(request, split_at_placeholders(body), files, headers)


async def _send_error(request: web.Request, outcome: Outcome, headers: dict[str, str]) -> web.StreamResponse:
    if not outcome.errors:
        raise outcome.error
    return await _send(request, refusal(outcome.error, request, outcome.error_answers), headers)


async def _send(request: web.Request, response: web.Response, headers: dict[str, str]) -> web.StreamResponse:
    """Send a response from within the handler, which so learns whether the client got it all."""
    response.headers.update(headers)
    await response.prepare(request)
    await response.write_eof()
    return response


def _link(request: web.Request, export: ExportAnswer) -> str:
    if export.url is None:
        raise NotFound("the picture was removed: its time of retention is over")
    return absolute(request, export.url)


async def list_models(request: web.Request) -> web.StreamResponse:
    read_query(request)
    return answer(model_list(request.app[SETTINGS].gemini_model))


async def show_model(request: web.Request) -> web.StreamResponse:
    """One model; raises NotFound."""
    read_query(request)
    name = request.match_info["id"]
    for model in model_list(request.app[SETTINGS].gemini_model).data:
        if model.id == name:
            return answer(model)
    raise NotFound("there is no such model")
