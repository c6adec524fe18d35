"""POST /api/thumbnails: generates pictures of a script with Gemini, and exports them."""

from contextlib import aclosing

from aiohttp import web

from service.bases import SharedBase
from service.errors import overall_error
from service.handlers.forms import open_form
from service.orders import Failed, Order, Variation, number_of
from service.schemas.answers import thumbnails_answer
from service.schemas.fields import THUMBNAIL_FIELDS, read_order
from service.server.admission import Ticket
from service.server.keys import ADMISSION, REQUEST_ID, SETTINGS, THUMBNAILS
from service.server.problems import problem
from service.server.sending import answer


async def create_thumbnails(request: web.Request) -> web.StreamResponse:
    """Generate `count` variations; 200 when at least one succeeded."""
    settings, admission, request_id = request.app[SETTINGS], request.app[ADMISSION], request[REQUEST_ID]
    async with open_form(request, texts=THUMBNAIL_FIELDS, files=("image",)) as form:
        order = read_order(form.fields, settings, request_id, form.uploads.get("image"))
        with await admission.enter("thumbnails", order.count) as ticket:
            async with request.app[THUMBNAILS].checked(order) as checked:
                form.keep = ticket.lent = True
                ended = await _ended(request, order, checked, ticket)
    body = thumbnails_answer(request_id, ended)
    if not body.variations:
        return problem(
            overall_error([each.error for each in ended if isinstance(each, Failed)]), request_id, body.errors
        )
    return answer(body)


async def _ended(
    request: web.Request, order: Order, checked: SharedBase | None, ticket: Ticket
) -> list[Variation | Failed]:
    """The last event of each variation, by number. The ticket is kept until the work has ended."""
    async with aclosing(request.app[THUMBNAILS].generate(order, ticket.leave, checked)) as events:
        return sorted([event async for event in events if isinstance(event, Variation | Failed)], key=number_of)
