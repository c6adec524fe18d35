"""What became of calls, by their rows: JSON that cannot be read is an error of its variation, not of the answer."""

import json
import logging
from collections.abc import Sequence

from service.errors import NoExport, ServiceError
from service.ledger.queries import cost_of, possible_of, state_of
from service.ledger.rows import CallRow, EventRow, RequestRow
from service.orders import Failed, Variation
from service.stored import Unreadable, error_from_json, script_from_json, variation_from_json

log = logging.getLogger(__name__)


def outcome_of(call: CallRow) -> Variation | Failed | None:
    """The variation, or the error, of a call that has ended."""
    if call.state != "exported" or not call.result:
        return Failed(variation_id(call.number), _error(call, call.error)) if call.error else None
    try:
        return variation_from_json(call.result)
    except Unreadable as error:
        _log(call, error)
        detail = "the picture is kept, but its stored answer cannot be read"
        return Failed(variation_id(call.number), NoExport(detail, billed=True, storage_path=call.raw))


def error_of(event: EventRow, call: CallRow) -> Failed:
    """The error of an event `failed`; the call has none any more if its picture was found later."""
    return Failed(variation_id(call.number), _error(call, event.data or ""))


def _error(call: CallRow, text: str) -> ServiceError:
    try:
        return error_from_json(text)
    except Unreadable as error:
        _log(call, error)
        return ServiceError("its stored error cannot be read", billed=billed(call), storage_path=call.raw)


def _log(call: CallRow, error: Unreadable) -> None:
    log.error("%s, %s: %s", call.request_id, variation_id(call.number), error)


def script_of(request: RequestRow) -> str:
    """The script of a request; empty if it cannot be read."""
    try:
        return script_from_json(request.spec)
    except Unreadable as error:
        log.error("%s: %s", request.id, error)
        return ""


def end_of(event: EventRow, calls: Sequence[CallRow]) -> tuple[str, int, int]:
    """State, cost and possible cost of an event `done`; of the request as it is now, if those cannot be read."""
    try:
        done = json.loads(event.data or "")
        return str(done["state"]), int(done["cost"]), int(done["possible"])
    except (ValueError, KeyError, TypeError) as error:
        log.error("%s: the stored end cannot be read: %r", event.request_id, error)
        return state_of(calls), cost_of(calls), possible_of(calls)


def billed(call: CallRow) -> bool | None:
    """Whether a call was billed; None if that is unknown."""
    if call.state in ("planned", "cancelled"):
        return False
    return None if call.billed is None else bool(call.billed)


def variation_id(number: int) -> str:
    return f"var-{number}"
