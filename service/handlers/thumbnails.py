"""POST /api/thumbnails: a script becomes finished pictures."""

from contextlib import aclosing

from aiohttp import web

from service.errors import most_telling
from service.handlers.forms import open_form
from service.orders import Failed, Order, Variation
from service.schemas.answers import ThumbnailsAnswer, error_answer, variation_answer
from service.schemas.fields import THUMBNAIL_FIELDS, read_order
from service.server.keys import EXPORTS, REQUEST_ID, SETTINGS, THUMBNAILS, TICKET
from service.server.problems import problem
from service.server.sending import answer


async def create_thumbnails(request: web.Request) -> web.StreamResponse:
    settings, exports = request.app[SETTINGS], request.app[EXPORTS]
    request_id, ticket = request[REQUEST_ID], request[TICKET]
    async with open_form(
        request,
        exports.store,
        request_id,
        texts=THUMBNAIL_FIELDS,
        files=("image",),
        file_bytes=settings.max_upload_bytes,
        stall_seconds=settings.upload_stall_seconds,
    ) as form:
        order = read_order(form.fields, settings, request_id, form.uploads.get("image"))
        async with request.app[THUMBNAILS].checked(order) as checked:
            await ticket.reserve(order.count)
            form.keep = ticket.lent = True
            done, failed = await _collect(request, checked)
    errors = [error_answer(failure) for failure in failed]
    if not done:
        error = most_telling([failure.error for failure in failed])
        return problem(error, request_id, errors)
    variations = [variation_answer(variation) for variation in done]
    return answer(ThumbnailsAnswer(request_id=request_id, variations=variations, errors=errors))


async def _collect(request: web.Request, order: Order) -> tuple[list[Variation], list[Failed]]:
    """The finished and the failed variations, each in order. The ticket stays with the work to its end."""
    done: list[Variation] = []
    failed: list[Failed] = []
    async with aclosing(request.app[THUMBNAILS].generate(order, request[TICKET].leave)) as events:
        async for event in events:
            if isinstance(event, Variation):
                done.append(event)
            elif isinstance(event, Failed):
                failed.append(event)
    return sorted(done, key=_number), sorted(failed, key=_number)


def _number(event: Variation | Failed) -> int:
    return int(event.id.removeprefix("var-"))
