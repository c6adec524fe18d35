"""POST /api/thumbnails: a script becomes finished pictures."""

from contextlib import aclosing

from aiohttp import web

from service.bases import SharedBase
from service.errors import overall_error
from service.handlers.forms import open_form
from service.orders import Failed, Order, Variation, number_of
from service.schemas.answers import ThumbnailsAnswer, error_answer, variation_answer
from service.schemas.fields import THUMBNAIL_FIELDS, read_order
from service.server.admission import Ticket
from service.server.keys import ADMISSION, REQUEST_ID, SETTINGS, THUMBNAILS
from service.server.problems import problem
from service.server.sending import answer


async def create_thumbnails(request: web.Request) -> web.StreamResponse:
    settings, admission, request_id = request.app[SETTINGS], request.app[ADMISSION], request[REQUEST_ID]
    async with open_form(request, texts=THUMBNAIL_FIELDS, files=("image",)) as form:
        order = read_order(form.fields, settings, request_id, form.uploads.get("image"))
        with await admission.enter("thumbnails", order.count) as ticket:
            async with request.app[THUMBNAILS].checked(order) as checked:
                form.keep = ticket.lent = True
                done, failed = await _collect(request, order, checked, ticket)
    errors = [error_answer(failure) for failure in failed]
    if not done:
        error = overall_error([failure.error for failure in failed])
        return problem(error, request_id, errors)
    variations = [variation_answer(variation) for variation in done]
    return answer(ThumbnailsAnswer(request_id=request_id, variations=variations, errors=errors))


async def _collect(
    request: web.Request, order: Order, checked: SharedBase | None, ticket: Ticket
) -> tuple[list[Variation], list[Failed]]:
    """The finished and the failed variations, each in order. The ticket stays with the work to its end."""
    done: list[Variation] = []
    failed: list[Failed] = []
    async with aclosing(request.app[THUMBNAILS].generate(order, ticket.leave, checked)) as events:
        async for event in events:
            if isinstance(event, Variation):
                done.append(event)
            elif isinstance(event, Failed):
                failed.append(event)
    return sorted(done, key=number_of), sorted(failed, key=number_of)
