"""The raw of a variation: download it, and export it again without another call to Gemini."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import PurePosixPath

from aiohttp import web

from service.bases import Base, lost_base
from service.errors import NoExport, NoRaw, NotFound, RawGone
from service.handlers.downloads import send_attachment
from service.handlers.forms import open_form
from service.handlers.multipart import Form
from service.imaging.formats import SNIFF_BYTES, TABLE, sniff
from service.ledger.rows import CallRow, RequestRow
from service.orders import Order
from service.schemas.answers import exports_answer
from service.schemas.collecting import Collected
from service.schemas.requests import EXPORT_FIELDS, read_changes
from service.server.keys import ADMISSION, CALLER, EXPORTS, JOBS, ORDER_ID, SETTINGS
from service.server.queries import read_query
from service.server.sending import answer
from service.store.holds import Hold, held
from service.stored import StoredBase, Unreadable, order_from_json

log = logging.getLogger(__name__)

REPLY = ".reply"


async def download_raw(request: web.Request) -> web.StreamResponse:
    """The raw of a variation, or the reply that could not be read; raises NoRaw, RawGone."""
    read_query(request)
    _, call = await _variation(request)
    if not call.raw:
        raise _no_raw(call)
    try:
        file = await request.app[EXPORTS].store.open(call.raw)
    except NotFound:
        raise RawGone(f"{call.raw} is not there any more") from None
    try:
        kind = sniff(await asyncio.to_thread(file.head, SNIFF_BYTES))
        mime = TABLE[kind].mime if kind else "application/octet-stream"
        return await send_attachment(request, file, PurePosixPath(call.raw).name, mime)
    finally:
        file.close()


async def export_again(request: web.Request) -> web.StreamResponse:
    """New exports of a kept raw; fields that are absent are as in the original request."""
    exports, settings = request.app[EXPORTS], request.app[SETTINGS]
    row, call = await _variation(request)
    if not call.raw or call.raw.endswith(REPLY):
        raise _no_raw(call)
    async with open_form(request, Collected(EXPORT_FIELDS, ("base",))) as form:
        order, stored = _order(row, call)
        plan, encodings = read_changes(form.fields, settings, order)
        async with held() as hold:
            await _hold_raw(request, call.raw, hold)
            source = await exports.source_at(exports.store.local(call.raw))
            if source.format is None:
                raise NoExport("what Gemini sent is not a picture", billed=True, storage_path=call.raw)
            base = await _base(request, form, stored, hold)
            with await request.app[ADMISSION].enter("exports"):
                exported = await exports.export_all(source, base, plan, encodings)
        form.keep = True
    return answer(exports_answer(row.id, source.sha256, exported))


def _order(row: RequestRow, call: CallRow) -> tuple[Order, StoredBase | None]:
    try:
        return order_from_json(row.spec, row.id)
    except Unreadable as error:
        log.error("%s: %s", row.id, error)
        detail = "the picture is kept, but its stored order cannot be read"
        raise NoExport(detail, billed=True, storage_path=call.raw) from error


async def _variation(request: web.Request) -> tuple[RequestRow, CallRow]:
    """The newest call of a variation; raises NotFound."""
    row, calls = await request.app[JOBS].get(request.match_info["request_id"], request[CALLER])
    request[ORDER_ID] = row.id
    asked = request.match_info["variation_id"]
    found = [call for call in calls if f"var-{call.number}" == asked]
    if not found:
        raise NotFound("there is no such variation")
    return row, _newest_with_raw(found)


def _newest_with_raw(calls: Sequence[CallRow]) -> CallRow:
    return next((call for call in reversed(calls) if call.raw), calls[-1])


def _no_raw(call: CallRow) -> NoRaw:
    return NoRaw(f"var-{call.number} has no picture: it is {call.state}")


async def _hold_raw(request: web.Request, key: str, hold: Hold) -> None:
    store = request.app[EXPORTS].store
    try:
        await store.hold_path(store.local(key), hold)
    except NotFound:
        raise RawGone(f"{key} is not there any more") from None


async def _base(request: web.Request, form: Form, stored: StoredBase | None, hold: Hold) -> Base | None:
    """The base that was sent now, else the original one; a warning says so if that is gone."""
    if sent := form.uploads.get("base"):
        return Base(sent, required=True)
    if stored is None:
        return None
    exports = request.app[EXPORTS]
    return await exports.base_at(exports.store.local(stored.key), hold) if stored.key else lost_base()
