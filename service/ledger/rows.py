"""The rows as frozen dataclasses: their fields are the columns, in the order in which every statement reads them."""

import time
from dataclasses import dataclass, fields
from typing import Literal

State = Literal["planned", "sending", "received", "exported", "failed", "unknown", "cancelled"]
Mode = Literal["sync", "async"]
EventKind = Literal["sent", "received", "exported", "failed", "done"]
# The states of calls that have not ended.
OPEN: tuple[State, ...] = ("planned", "sending", "received")


def microseconds() -> int:
    """The current time in microseconds since 1970, as the ledger stores it."""
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One request: `spec` is its order as JSON, `upload` the key of its base.

    While `key_held` is 1, this request answers every repetition of its idempotency key. `delivered` is when its answer
    was sent to a client in whole, `joined` when an automatic retry was first given this request; both are only noted
    for routes whose clients retry without a key.
    """

    id: str
    principal: str
    route: str
    idempotency_key: str | None
    key_held: int
    fingerprint: str
    mode: Mode
    backend: str
    spec: str
    upload: str | None
    count: int
    last_event: int
    owner: str
    cancelled: int | None
    created: int
    finished: int | None
    deleted: int | None
    delivered: int | None = None
    joined: int | None = None


@dataclass(frozen=True, slots=True)
class CallRow:
    """One call for one variation, `number` and `attempt` from 1.

    In nano-dollars: `reserved` before it is sent, `possible` if it may have been billed, and `cost` (None: unknown as
    yet; `estimated`: it is the list price). `billed` is 1, 0, or None if that is unknown.
    """

    request_id: str
    number: int
    attempt: int
    state: State
    owner: str
    principal: str
    tries: int
    model: str
    image_size: str
    tier: str
    day: str
    list_price: int | None
    reserved: int
    possible: int
    cost: int | None
    estimated: int
    billed: int | None
    usage: str | None
    raw: str | None
    sha256: str | None
    size: int | None
    stem: str
    result: str | None
    error: str | None
    planned: int
    sent: int | None
    received: int | None
    finished: int | None


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event of a request; `sequence` counts from 1 without gaps, `data` is JSON that no call row has."""

    request_id: str
    sequence: int
    at: int
    kind: EventKind
    number: int | None
    attempt: int | None
    data: str | None


@dataclass(frozen=True, slots=True)
class DayRow:
    """Money of one UTC day in nano-dollars, of one or several principals, or of all."""

    day: str
    reserved: int
    spent: int
    possible: int

    @property
    def used(self) -> int:
        return self.reserved + self.spent + self.possible


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Calls of one day, name of their keys, model, size, tier and outcome, with their sums."""

    day: str
    key_name: str
    model: str
    image_size: str
    tier: str
    outcome: str
    calls: int
    pictures: int
    cost: int
    possible: int
    unpriced: int
    estimated: int


@dataclass(frozen=True, slots=True)
class OwnerRow:
    """A process that may have open requests; it holds a lock of its id for as long as it lives."""

    id: str
    host: str
    pid: int
    started: int


def columns(row: type) -> str:
    """The column list of a row's dataclass."""
    return ", ".join(field.name for field in fields(row))


def placeholders(row: type) -> str:
    return ", ".join(f":{field.name}" for field in fields(row))
