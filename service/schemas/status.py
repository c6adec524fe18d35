"""Pydantic models of the status and the events of a request, and of usage, and functions that make them from rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from service.errors import ServiceError
from service.gemini.costs import usd
from service.ledger.queries import cost_of, possible_of, state_of
from service.ledger.rows import CallRow, DayRow, EventKind, EventRow, Mode, RequestRow, State, UsageRow
from service.orders import Failed, Variation
from service.publishing import Export
from service.schemas.answers import ErrorAnswer, VariationAnswer, error_answer, variation_answer
from service.schemas.outcomes import billed, end_of, error_of, outcome_of, script_of, variation_id

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
            "script": script_of(request),
            "count": request.count,
            "idempotency_key": request.idempotency_key,
            "batch_id": None,
            "variations": list(variations.values()),
            "errors": [error_answer(Failed(variation_id(number), error)) for number, error in errors.items()],
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
        outcome = outcome_of(call)
        if isinstance(outcome, Variation):
            variations[number] = _linked(outcome, link)
        elif outcome:
            errors[number] = outcome.error
    return variations, errors


def _linked(variation: Variation, link: Link) -> VariationAnswer:
    """A stored variation with current links."""
    answer = variation_answer(variation)
    exports = {
        name: answer.exports[name].model_copy(update={"url": link(export)})
        for name, export in variation.exported.exports.items()
    }
    return answer.model_copy(update={"exports": exports})


def _call_answer(call: CallRow) -> CallAnswer:
    return CallAnswer(
        id=variation_id(call.number),
        attempt=call.attempt,
        state=call.state,
        model=call.model,
        image_size=call.image_size,
        tier=call.tier,
        sent_at=_time(call.sent),
        finished_at=_time(call.finished),
        billed=billed(call),
        cost_usd=_cost(call),
        estimated=bool(call.estimated),
        storage_path=call.raw,
        sha256=call.sha256,
    )


def _cost(call: CallRow) -> float | None:
    if call.state in ("planned", "sending", "unknown") or call.cost is None:
        return None
    return usd(call.cost)


def event_answer(event: EventRow, calls: Sequence[CallRow], link: Link) -> str:
    """An event's data as one line of JSON."""
    call = next((each for each in calls if (each.number, each.attempt) == (event.number, event.attempt)), None)
    data: dict[str, Any] = {"request_id": event.request_id, "at": _time(event.at)}
    if call:
        data |= {"id": variation_id(call.number), "attempt": call.attempt, "storage_path": call.raw, "size": call.size}
        if event.kind == "exported" and isinstance(outcome := outcome_of(call), Variation):
            data["variation"] = _linked(outcome, link)
        if event.kind == "failed":
            data["error"] = error_answer(error_of(event, call))
    if event.kind == "done":
        state, cost, possible = end_of(event, calls)
        data |= {"state": state, "cost_usd": usd(cost), "possibly_billed_usd": usd(possible)}
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


def _time(microseconds: int | None) -> Any:
    if microseconds is None:
        return None
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest).isoformat(timespec="microseconds")
