"""The status of a request, the list of requests, cancel, and delete."""

from aiohttp import web

from service.errors import InvalidField, StillRunning
from service.handlers.links import link_of
from service.imaging.formats import FORMATS
from service.jobs.job import ROUTE
from service.ledger.rows import CallRow, RequestRow
from service.schemas.status import StatusAnswer, StatusList, status_answer
from service.server.keys import CALLER, EXPORTS, JOBS, ORDER_ID
from service.server.queries import read_query
from service.server.sending import answer
from service.store.layout import export_key

DEFAULT_LIMIT, MAX_LIMIT = 20, 100


async def show_request(request: web.Request) -> web.StreamResponse:
    read_query(request)
    found = await request.app[JOBS].get(request.match_info["request_id"], request[CALLER])
    return answer(await _status(request, *found))


async def list_requests(request: web.Request) -> web.StreamResponse:
    """The caller's requests, newest first; raises NotFound for a `before` that is none of them."""
    query = read_query(request, ("limit", "before", "idempotency_key"))
    jobs, caller = request.app[JOBS], request[CALLER]
    limit = _limit(query.get("limit", str(DEFAULT_LIMIT)))
    if key := query.get("idempotency_key"):
        newest = await jobs.ledger.newest_of_key(caller.filter, ROUTE, key)
        found = [newest] if newest else []
    else:
        before = (await jobs.get(query["before"], caller))[0] if "before" in query else None
        found = await jobs.ledger.newest(caller.filter, limit, before)
    return answer(StatusList(requests=[await _status(request, *each) for each in found]))


async def cancel_request(request: web.Request) -> web.StreamResponse:
    read_query(request)
    found = await request.app[JOBS].cancel(request.match_info["request_id"], request[CALLER])
    return answer(await _status(request, *found))


async def delete_request(request: web.Request) -> web.StreamResponse:
    """Remove the files of a request that has ended, and blank its order and answers; its calls and costs stay."""
    read_query(request)
    request_id = request.match_info["request_id"]
    try:
        row, calls = await request.app[JOBS].delete(request_id, request[CALLER])
    except StillRunning:
        request[ORDER_ID] = request_id
        raise
    await request.app[EXPORTS].store.remove(_files(row, calls))
    return web.Response(status=204)


def _files(row: RequestRow, calls: list[CallRow]) -> list[str]:
    exports = [export_key(call.stem, each) for call in calls for each in FORMATS]
    return [*exports, *(call.raw for call in calls if call.raw), *filter(None, [row.upload])]


async def _status(request: web.Request, row: RequestRow, calls: list[CallRow]) -> StatusAnswer:
    return status_answer(row, calls, await link_of(request, calls))


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= MAX_LIMIT):
        raise InvalidField(f"limit={text[:20]!r} is not allowed: a whole number from 1 to {MAX_LIMIT}")
    return int(text)
