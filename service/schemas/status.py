"""Pydantic models of the status and the events of a request, and of usage, and functions that make them from rows."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from service.errors import ServiceError
from service.gemini.costs import usd
from service.ledger.queries import cost_of, possible_of, state_of
from service.ledger.rows import CallRow, DayRow, EventKind, EventRow, Mode, RequestRow, State, UsageRow
from service.orders import Failed
from service.publishing import Export
from service.schemas.answers import ErrorAnswer, VariationAnswer, error_answer, variation_answer
from service.stored import error_from_json, variation_from_json

# The URL of an export as it is answered now; None when its file is gone.
Link = Callable[[Export], str | None]
RequestState = Literal["running", "succeeded", "partial", "cancelled", "failed"]


class CallAnswer(BaseModel):
    id: str
    attempt: int
    state: State
    model: str
    image_size: str
    tier: str
    sent_at: str | None
    finished_at: str | None
    billed: bool | None
    cost_usd: float | None
    estimated: bool
    storage_path: str | None
    sha256: str | None


class StatusAnswer(BaseModel):
    request_id: str
    state: RequestState
    mode: Mode
    created_at: str
    finished_at: str | None
    script: str
    count: int
    idempotency_key: str | None
    batch_id: None
    variations: list[VariationAnswer]
    errors: list[ErrorAnswer]
    calls: list[CallAnswer]
    cost_usd: float
    possibly_billed_usd: float


class StatusList(BaseModel):
    requests: list[StatusAnswer]


class EventData(BaseModel):
    """The members of an event's `data`; those that its kind does not have are left out."""

    request_id: str
    at: str
    id: str | None = None
    attempt: int | None = None
    storage_path: str | None = None
    size: int | None = None
    variation: VariationAnswer | None = None
    error: ErrorAnswer | None = None
    state: str | None = None
    cost_usd: float | None = None
    possibly_billed_usd: float | None = None


_MEMBERS: Mapping[EventKind, set[str]] = {
    "sent": {"id", "attempt"},
    "received": {"id", "attempt", "storage_path", "size"},
    "exported": {"id", "attempt", "variation"},
    "failed": {"id", "attempt", "error"},
    "done": {"state", "cost_usd", "possibly_billed_usd"},
}


class UsageAnswerRow(BaseModel):
    day: str
    model: str
    image_size: str
    tier: str
    outcome: Literal["exported", "failed", "unknown", "open"]
    calls: int
    cost_usd: float
    possibly_billed_usd: float


class UsageTotal(BaseModel):
    calls: int
    pictures: int
    cost_usd: float
    possibly_billed_usd: float
    unpriced_calls: int
    estimated_calls: int


class BudgetAnswer(BaseModel):
    usd_per_day: float | None
    day: str
    spent_usd: float
    reserved_usd: float
    possibly_billed_usd: float
    left_usd: float | None


class UsageAnswer(BaseModel):
    first: str = Field(serialization_alias="from")
    to: str
    rows: list[UsageAnswerRow]
    total: UsageTotal
    budget: BudgetAnswer


def status_answer(request: RequestRow, calls: Sequence[CallRow], link: Link) -> StatusAnswer:
    variations, errors = outcomes(calls, link)
    return StatusAnswer.model_validate(
        {
            "request_id": request.id,
            "state": state_of(calls),
            "mode": request.mode,
            "created_at": _time(request.created),
            "finished_at": _time(request.finished),
            "script": json.loads(request.spec).get("script", ""),
            "count": request.count,
            "idempotency_key": request.idempotency_key,
            "batch_id": None,
            "variations": list(variations.values()),
            "errors": [error_answer(Failed(_id(number), error)) for number, error in errors.items()],
            "calls": [_call_answer(call) for call in calls],
            "cost_usd": usd(cost_of(calls)),
            "possibly_billed_usd": usd(possible_of(calls)),
        }
    )


def outcomes(calls: Sequence[CallRow], link: Link) -> tuple[dict[int, VariationAnswer], dict[int, ServiceError]]:
    """The variations and errors of calls that have ended, by number; of several attempts, the last one."""
    variations: dict[int, VariationAnswer] = {}
    errors: dict[int, ServiceError] = {}
    for number, call in {call.number: call for call in calls}.items():
        if call.state == "exported" and call.result:
            variations[number] = linked(call.result, link)
        elif call.error:
            errors[number] = error_from_json(call.error)
    return variations, errors


def linked(result: str, link: Link) -> VariationAnswer:
    """A stored variation with current links."""
    answer = variation_answer(variation := variation_from_json(result))
    exports = {
        name: answer.exports[name].model_copy(update={"url": link(export)})
        for name, export in variation.exported.exports.items()
    }
    return answer.model_copy(update={"exports": exports})


def _call_answer(call: CallRow) -> CallAnswer:
    return CallAnswer(
        id=_id(call.number),
        attempt=call.attempt,
        state=call.state,
        model=call.model,
        image_size=call.image_size,
        tier=call.tier,
        sent_at=_time(call.sent),
        finished_at=_time(call.finished),
        billed=_billed(call),
        cost_usd=_cost(call),
        estimated=bool(call.estimated),
        storage_path=call.raw,
        sha256=call.sha256,
    )


def _billed(call: CallRow) -> bool | None:
    if call.state in ("planned", "cancelled"):
        return False
    return None if call.billed is None else bool(call.billed)


def _cost(call: CallRow) -> float | None:
    if call.state in ("planned", "sending", "unknown") or call.cost is None:
        return None
    return usd(call.cost)


def event_answer(event: EventRow, calls: Sequence[CallRow], link: Link) -> str:
    """An event's data as one line of JSON."""
    call = next((each for each in calls if (each.number, each.attempt) == (event.number, event.attempt)), None)
    data: dict[str, Any] = {"request_id": event.request_id, "at": _time(event.at)}
    if call:
        data |= {"id": _id(call.number), "attempt": call.attempt, "storage_path": call.raw, "size": call.size}
        if event.kind == "exported" and call.result:
            data["variation"] = linked(call.result, link)
    if event.kind == "failed" and event.data:
        data["error"] = error_answer(Failed(data["id"], error_from_json(event.data)))
    if event.kind == "done" and event.data:
        done = json.loads(event.data)
        data |= {
            "state": done["state"],
            "cost_usd": usd(done["cost"]),
            "possibly_billed_usd": usd(done["possible"]),
        }
    members = _MEMBERS[event.kind] | {"request_id", "at"}
    return EventData.model_validate(data).model_dump_json(include=members)


def usage_answer(first: str, last: str, rows: Sequence[UsageRow], today: DayRow, budget: int | None) -> UsageAnswer:
    """`budget` of a day in nano-dollars, None without one."""
    left = None if budget is None else max(0, budget - today.used)
    return UsageAnswer(
        first=first,
        to=last,
        rows=[_usage_row(row) for row in rows],
        total=UsageTotal(
            calls=sum(row.calls for row in rows),
            pictures=sum(row.pictures for row in rows),
            cost_usd=usd(sum(row.cost for row in rows)),
            possibly_billed_usd=usd(sum(row.possible for row in rows)),
            unpriced_calls=sum(row.unpriced for row in rows),
            estimated_calls=sum(row.estimated for row in rows),
        ),
        budget=BudgetAnswer(
            usd_per_day=None if budget is None else usd(budget),
            day=today.day,
            spent_usd=usd(today.spent),
            reserved_usd=usd(today.reserved),
            possibly_billed_usd=usd(today.possible),
            left_usd=None if left is None else usd(left),
        ),
    )


def _usage_row(row: UsageRow) -> UsageAnswerRow:
    return UsageAnswerRow.model_validate(
        {**asdict(row), "cost_usd": usd(row.cost), "possibly_billed_usd": usd(row.possible)}
    )


def _id(number: int) -> str:
    return f"var-{number}"


def _time(microseconds: int | None) -> Any:
    if microseconds is None:
        return None
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest).isoformat(timespec="microseconds")
