"""GET …/events: the events of a request as server-sent events (SSE)."""

import asyncio

from aiohttp import web

from service.errors import MalformedRequest
from service.handlers.links import link_of
from service.ledger.rows import EventRow
from service.schemas.headers import last_event_id
from service.schemas.status import event_answer
from service.server.keys import CALLER, JOBS, ORDER_ID, SETTINGS
from service.server.queries import read_query

EVENT_STREAM = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}


async def follow_events(request: web.Request) -> web.StreamResponse:
    """Send the events after Last-Event-ID until the request has ended; 204 if there are none and it has."""
    query = read_query(request, ("last_event_id",))
    after = last_event_id(request.headers.getall("Last-Event-ID", ()), query.get("last_event_id"))
    request_id, jobs = request.match_info["request_id"], request.app[JOBS]
    row, _ = await jobs.get(request_id, request[CALLER])
    request[ORDER_ID] = row.id
    if after > row.last_event:
        raise MalformedRequest(f"Last-Event-ID is {after}, and the newest event is {row.last_event}")
    if row.finished is not None and after == row.last_event:
        return web.Response(status=204)
    response = web.StreamResponse(headers=EVENT_STREAM)
    await response.prepare(request)
    if request.transport:
        # Let `drain` wait until all is sent, so that no more than one event waits.
        request.transport.set_write_buffer_limits(0)
    await _write(request, response, "retry: 2000\n\n")
    async for event in jobs.events(request_id, after, request.app[SETTINGS].sse_heartbeat_seconds):
        await _write(request, response, await _format(request, event) if event else ": \n\n")
    await response.write_eof()
    return response


async def _format(request: web.Request, event: EventRow) -> str:
    found = await request.app[JOBS].ledger.request(event.request_id)
    calls = found[1] if found else []
    data = event_answer(event, calls, await link_of(request, calls)).model_dump_json()
    return f"id: {event.sequence}\nevent: {event.kind}\ndata: {data}\n\n"


async def _write(request: web.Request, response: web.StreamResponse, text: str) -> None:
    """Send it; the connection of a client that does not read for DOWNLOAD_STALL_SECONDS is aborted."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client disconnected")
    try:
        async with asyncio.timeout(request.app[SETTINGS].download_stall_seconds):
            await response.write(text.encode())
            await request.writer.drain()
    except TimeoutError:
        transport.abort()
        raise ConnectionResetError("the client does not read") from None
