"""GET /api/usage: calls and money per day."""

from aiohttp import web

from service.schemas.requests import read_days
from service.schemas.usage import budget_answer, usage_answer
from service.server.keys import CALLER, JOBS, SETTINGS
from service.server.queries import read_query

_BUDGETS = {"budget", "key_budget"}


async def show_usage(request: web.Request) -> web.StreamResponse:
    query = read_query(request, ("from", "to"))
    first, last = read_days(query.get("from"), query.get("to"))
    ledger = request.app[JOBS].ledger
    caller, budget = request[CALLER], request.app[SETTINGS].budget_nano
    rows = await ledger.usage(caller.filter, first, last)
    if caller.limits.budget is None:
        name, money = "budget", budget_answer(await ledger.today(), budget)
    else:
        name, money = "key_budget", budget_answer(await ledger.today(caller.principals), caller.limits.budget)
    answer = usage_answer(first, last, rows, caller.name, **{name: money})
    body = answer.model_dump_json(by_alias=True, exclude=_BUDGETS - {name})
    return web.Response(body=body.encode(), content_type="application/json")
