"""Pydantic models of the status and the events of a request, and functions that make them from ledger rows."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from service.errors import ServiceError
from service.gemini.costs import usd
from service.ledger.queries import cost_of, possible_of, state_of
from service.ledger.rows import CallRow, EventKind, EventRow, Mode, RequestRow, State
from service.orders import Failed, Variation
from service.publishing import Export
from service.schemas.answers import (
    Answer,
    ErrorAnswer,
    Sha256,
    Timestamp,
    VariationAnswer,
    error_answer,
    variation_answer,
)
from service.schemas.outcomes import billed, end_of, error_of, outcome_of, script_of, variation_id

# The URL of an export as it is answered now; None when its file is gone.
Link = Callable[[Export], str | None]
RequestState = Literal["running", "succeeded", "partial", "cancelled", "failed"]


class CallAnswer(Answer):
    """One call to Gemini."""

    id: str
    """Of its variation."""
    attempt: int
    state: State
    """`unknown`: it cannot be determined whether it was billed."""
    model: str
    image_size: str
    tier: str
    sent_at: Timestamp | None
    finished_at: Timestamp | None
    billed: bool | None
    cost_usd: float | None
    estimated: bool
    """Whether the cost is the list price, since Gemini's count of tokens is not known."""
    storage_path: str | None
    sha256: Sha256 | None


class StatusAnswer(Answer):
    """A request for thumbnails."""

    request_id: str
    state: RequestState
    """`succeeded`: all variations were exported; `partial`: some; `cancelled`, `failed`: none."""
    mode: Mode
    created_at: Timestamp
    finished_at: Timestamp | None
    script: str
    count: int
    idempotency_key: str | None
    batch_id: None
    variations: list[VariationAnswer]
    errors: list[ErrorAnswer]
    calls: list[CallAnswer]
    cost_usd: float
    possibly_billed_usd: float
    """The list price of the calls that are out or unknown."""


class StatusList(Answer):
    requests: list[StatusAnswer]
    """Newest first."""


class Event(Answer):
    """The data of an event."""

    request_id: str
    at: Timestamp


class CallEvent(Event):
    id: str
    """Of the variation."""
    attempt: int


class SentEvent(CallEvent):
    """The call is about to be sent."""


class ReceivedEvent(CallEvent):
    """The picture is stored."""

    storage_path: str | None
    size: int | None
    """In bytes."""


class ExportedEvent(CallEvent):
    """The exports of a picture are published."""

    variation: VariationAnswer | None
    """Null if its stored answer cannot be read."""


class FailedEvent(CallEvent):
    """It ended without exports."""

    error: ErrorAnswer


class DoneEvent(Event):
    """The request has ended, and so has the stream."""

    state: RequestState
    cost_usd: float
    possibly_billed_usd: float


EVENTS: Mapping[EventKind, type[Event]] = {
    "sent": SentEvent,
    "received": ReceivedEvent,
    "exported": ExportedEvent,
    "failed": FailedEvent,
    "done": DoneEvent,
}


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


def event_answer(event: EventRow, calls: Sequence[CallRow], link: Link) -> Event:
    common: dict[str, Any] = {"request_id": event.request_id, "at": _time(event.at)}
    if event.kind == "done":
        state, cost, possible = end_of(event, calls)
        return DoneEvent(**common, state=state, cost_usd=usd(cost), possibly_billed_usd=usd(possible))
    call = next(each for each in calls if (each.number, each.attempt) == (event.number, event.attempt))
    common |= {"id": variation_id(call.number), "attempt": call.attempt}
    match event.kind:
        case "sent":
            return SentEvent(**common)
        case "received":
            return ReceivedEvent(**common, storage_path=call.raw, size=call.size)
        case "exported":
            outcome = outcome_of(call)
            return ExportedEvent(**common, variation=_linked(outcome, link) if isinstance(outcome, Variation) else None)
        case "failed":
            return FailedEvent(**common, error=error_answer(error_of(event, call)))


def _time(microseconds: int | None) -> Any:
    if microseconds is None:
        return None
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest).isoformat(timespec="microseconds")
