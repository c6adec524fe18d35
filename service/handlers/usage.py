"""GET /api/usage: calls and money per day."""

from aiohttp import web

from service.schemas.requests import read_days
from service.schemas.status import usage_answer
from service.server.keys import CALLER, JOBS, SETTINGS
from service.server.queries import read_query


async def show_usage(request: web.Request) -> web.StreamResponse:
    query = read_query(request, ("from", "to"))
    first, last = read_days(query.get("from"), query.get("to"))
    ledger = request.app[JOBS].ledger
    rows = await ledger.usage(request[CALLER].filter, first, last)
    answer = usage_answer(first, last, rows, await ledger.today(), request.app[SETTINGS].budget_nano)
    return web.Response(body=answer.model_dump_json(by_alias=True).encode(), content_type="application/json")
