"""GET …/events: what happens to a request, as server-sent events."""

import asyncio

from aiohttp import web

from service.errors import MalformedRequest
from service.handlers.links import link_of
from service.ledger.rows import EventRow
from service.schemas.headers import last_event_id
from service.schemas.status import event_answer
from service.server.keys import CALLER, JOBS, SETTINGS
from service.server.queries import read_query

MAX_WAITING_BYTES = 1024 * 1024
_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}


async def follow_events(request: web.Request) -> web.StreamResponse:
    """The events after Last-Event-ID, until the request has ended; 204 where nothing can follow."""
    query = read_query(request, ("last_event_id",))
    after = last_event_id(request.headers.getall("Last-Event-ID", ()), query.get("last_event_id"))
    request_id, jobs = request.match_info["request_id"], request.app[JOBS]
    row, _ = await jobs.get(request_id, request[CALLER])
    if after > row.last_event:
        raise MalformedRequest(f"Last-Event-ID is {after}, and the newest event is {row.last_event}")
    if row.finished is not None and after == row.last_event:
        return web.Response(status=204)
    response = web.StreamResponse(headers=_HEADERS)
    await response.prepare(request)
    await _write(request, response, "retry: 2000\n\n")
    async for event in jobs.events(request_id, after, request.app[SETTINGS].sse_heartbeat_seconds):
        await _write(request, response, await _spell(request, event) if event else ": \n\n")
    await response.write_eof()
    return response


async def _spell(request: web.Request, event: EventRow) -> str:
    found = await request.app[JOBS].ledger.request(event.request_id)
    calls = found[1] if found else []
    data = event_answer(event, calls, await link_of(request, calls))
    return f"id: {event.sequence}\nevent: {event.kind}\ndata: {data}\n\n"


async def _write(request: web.Request, response: web.StreamResponse, text: str) -> None:
    """Send it; a client that leaves what was sent unread is dropped, however little that is."""
    transport = request.transport
    if transport is None or transport.get_write_buffer_size() > MAX_WAITING_BYTES:
        raise ConnectionResetError("the client does not read")
    try:
        async with asyncio.timeout(request.app[SETTINGS].download_stall_seconds):
            await response.write(text.encode())
    except TimeoutError:
        transport.abort()
        raise ConnectionResetError("the client does not read") from None
