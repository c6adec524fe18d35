"""The steps of requests and calls: which state may follow which, with the event and the money of each.

```
planned ──send──► sending ──receive──► received ──export──► exported
   ▲                 │ │                  │
   └────refuse───────┘ ├──fail──► failed ◄┘
   │                   └──lose──► unknown ──receive──► received     (its picture was found)
   └──cancel──► cancelled
```
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from service.ledger import statements
from service.ledger.database import NONE, Database, Values, read, values_of
from service.ledger.money import Budgets, Overspent, day_of, ignore, reserve, settle
from service.ledger.queries import MISSING, calls_of, cost_of, open_requests, possible_of, state_of
from service.ledger.retries import join
from service.ledger.rows import CallRow, EventKind, EventRow, Mode, RequestRow


@dataclass(frozen=True, slots=True)
class NewRequest:
    """A request to be opened.

    In nano-dollars: `list_price` of one call (None: unknown), `budget` of the principal's day (None: no limit), in
    which those that it was `formerly` count too. A key that one of them made is still its own.

    With `joins` it is an automatic retry, which rather repeats a request with the same body, see `retries.join`.
    """

    id: str
    principal: str
    route: str
    fingerprint: str
    mode: Mode
    backend: str
    spec: str
    upload: str | None
    model: str
    image_size: str
    stems: Sequence[str]
    list_price: int | None
    idempotency_key: str | None = None
    tier: str = "interactive"
    joins: bool = False
    formerly: tuple[str, ...] = ()
    budget: int | None = None

    @property
    def principals(self) -> tuple[str, ...]:
        return (self.principal, *self.formerly)


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings: the lifetime of a key in microseconds, the budget of a day in nano-dollars (None: no limit)."""

    key_lifetime: int
    budget: int | None


@dataclass(frozen=True, slots=True)
class Opened:
    """A request that `open_request` wrote, with its calls (`is_new`); or the one that the new one repeats."""

    request: RequestRow
    is_new: bool
    calls: Sequence[CallRow] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """A picture that was received: its key, digest, bytes, usage as JSON, and cost (None: the price is unknown)."""

    raw: str
    sha256: str
    size: int
    usage: str | None
    cost: int | None
    estimated: bool


@dataclass(frozen=True, slots=True)
class CallId:
    request_id: str
    number: int
    attempt: int = 1

    @classmethod
    def of(cls, call: CallRow) -> "CallId":
        return cls(call.request_id, call.number, call.attempt)

    def values(self) -> dict[str, Any]:
        return {"request_id": self.request_id, "number": self.number, "attempt": self.attempt}


def open_request(database: Database, new: NewRequest, owner: str, rules: Rules, now: int) -> Opened:
    """Claim the key, plan the calls and reserve their money: all or nothing; or find the request that is repeated.

    Raises BudgetExhausted.
    """
    if new.idempotency_key:
        holder = holder_of_key(database, new.principals, new.route, new.idempotency_key, rules, now)
        if holder:
            return Opened(holder, is_new=False)
    elif new.joins and (joined := join(database, new.principals, new.route, new.fingerprint, now)):
        return Opened(joined, is_new=False)
    request = RequestRow(
        new.id, new.principal, new.route, new.idempotency_key, int(new.idempotency_key is not None), new.fingerprint,
        new.mode, new.backend, new.spec, new.upload, len(new.stems), 0, owner, None, now, None, None,
    )  # fmt: skip
    if not database.run(statements.INSERT_REQUEST, values_of(request)):
        # Another process claimed the key in this moment.
        values = _key(new.principal, new.route, new.idempotency_key)
        return Opened(next(read(database, RequestRow, statements.HOLDER_OF_KEY, values)), is_new=False)
    reserved = 2 * (new.list_price or 0)
    reserve(database, new.principals, reserved * len(new.stems), Budgets(rules.budget, new.budget), now)
    calls = [
        CallRow(
            new.id, number, 1, "planned", owner, new.principal, 0, new.model, new.image_size, new.tier, day_of(now),
            new.list_price, reserved, 0, None, 0, None, None, None, None, None, stem, None, None, now, None, None, None,
        )
        for number, stem in enumerate(new.stems, 1)
    ]  # fmt: skip
    for call in calls:
        database.run(statements.INSERT_CALL, values_of(call))
    return Opened(request, is_new=True, calls=calls)


def _key(principal: str, route: str, key: str | None) -> Values:
    return {"principal": principal, "route": route, "idempotency_key": key}


def holder_of_key(
    database: Database, principals: tuple[str, ...], route: str, key: str | None, rules: Rules, now: int
) -> RequestRow | None:
    """The request that holds a key; releases the key if its lifetime is over and the request has ended."""
    each = (_key(principal, route, key) for principal in principals)
    holders = (holder for values in each for holder in read(database, RequestRow, statements.HOLDER_OF_KEY, values))
    holder = next(holders, None)
    if holder and holder.finished and now >= holder.created + rules.key_lifetime:
        database.run(statements.FREE_KEY, {"id": holder.id})
        return None
    return holder


def send(database: Database, call: CallId, owner: str, now: int) -> bool:
    """Planned -> sending: the call may be sent only if this returns True."""
    return _advance(database, statements.SEND, call, owner, now, "sent") is not None


def refuse(database: Database, call: CallId, owner: str) -> bool:
    """Sending -> planned: Gemini refused the call, and it may be sent again."""
    return bool(database.run(statements.REFUSE, {**call.values(), "owner": owner}))


def receive(
    database: Database, call: CallId, owner: str, receipt: Receipt, now: int, overspent: Overspent = ignore
) -> bool:
    """-> received: its picture is stored. A request that had ended is open again."""
    values: Values = {
        "raw": receipt.raw, "sha256": receipt.sha256, "size": receipt.size, "usage": receipt.usage,
        "estimated": int(receipt.estimated), "missing": MISSING,
    }  # fmt: skip
    was = _advance(database, statements.RECEIVE, call, owner, now, "received", values)
    if was:
        settle(database, was, cost=receipt.cost, overspent=overspent)
        database.run(statements.REOPEN_REQUEST, {"id": call.request_id, "owner": owner})
    return was is not None


def export(
    database: Database, call: CallId, owner: str, result: str, now: int, receipt: Receipt | None = None,
    overspent: Overspent = ignore,
) -> bool:  # fmt: skip
    """Received -> exported, with the answer's variation as JSON.

    With `receipt`, if `receive` was refused before, both steps are made at once.
    """
    if receipt:
        receive(database, call, owner, receipt, now, overspent)
    done = _advance(database, statements.EXPORT, call, owner, now, "exported", {"result": result}) is not None
    if done:
        _finish(database, call.request_id, now)
    return done


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call ended without exports: the error as JSON, its cost (None: unknown), the key of what was kept."""

    error: str
    billed: bool | None
    cost: int | None = 0
    raw: str | None = None
    usage: str | None = None
    estimated: bool = False


def fail(
    database: Database, call: CallId, owner: str, failure: Failure, now: int, overspent: Overspent = ignore
) -> bool:
    """-> failed. A call that was received keeps its cost."""
    return _end(database, statements.FAIL, call, owner, failure, now, overspent)


def lose(database: Database, call: CallId, owner: str, error: str, now: int) -> bool:
    """Sending -> unknown: it may have been billed."""
    return _end(database, statements.LOSE, call, owner, Failure(error, None, None), now)


def cancel(database: Database, call: CallId, owner: str | None, error: str, now: int) -> bool:
    """Planned -> cancelled; `owner` None: whichever process owns the call, which finds out when it would send it."""
    return _end(database, statements.CANCEL, call, owner, Failure(error, False), now)


def _end(
    database: Database, statement: str, call: CallId, owner: str | None, failure: Failure, now: int,
    overspent: Overspent = ignore,
) -> bool:  # fmt: skip
    billed = None if failure.billed is None else int(failure.billed)
    values: Values = {
        "error": failure.error, "billed": billed, "raw": failure.raw, "usage": failure.usage,
        "estimated": int(failure.estimated),
    }  # fmt: skip
    was = _advance(database, statement, call, owner, now, "failed", values)
    if was is None:
        return False
    cost = was.cost if was.state == "received" else failure.cost
    possible = (was.list_price or 0) if statement is statements.LOSE else 0
    settle(database, was, cost, possible, overspent)
    _finish(database, call.request_id, now)
    return True


def _advance(
    database: Database,
    statement: str,
    call: CallId,
    owner: str | None,
    now: int,
    kind: EventKind,
    values: Values = NONE,
) -> CallRow | None:
    """Make a step and its event; returns the call as it was before, None if its state does not allow this step."""
    was = next(read(database, CallRow, statements.READ_CALL, call.values()), None)
    if was is None or not database.run(statement, {**call.values(), "owner": owner, "now": now, **values}):
        return None
    # The event keeps its error: if the picture is found later, the call has none any more.
    error = values.get("error") if kind == "failed" else None
    _append(database, call.request_id, kind, now, call.number, call.attempt, str(error) if error else None)
    return was


def _append(
    database: Database, request_id: str, kind: EventKind, now: int, number: int | None = None,
    attempt: int | None = None, data: str | None = None,
) -> None:  # fmt: skip
    sequence = database.run(statements.NEXT_EVENT, {"id": request_id})[0][0]
    database.run(statements.INSERT_EVENT, values_of(EventRow(request_id, sequence, now, kind, number, attempt, data)))


def _finish(database: Database, request_id: str, now: int) -> None:
    """End the request with its last call: the end of the call, `finished` and the event `done` are one transaction."""
    if database.run(statements.COUNT_OPEN, {"id": request_id})[0][0]:
        return
    calls = calls_of(database, request_id)
    database.run(statements.FINISH_REQUEST, {"id": request_id, "now": now})
    if all(call.billed == 0 for call in calls):
        database.run(statements.FREE_KEY, {"id": request_id})
    data = {"state": state_of(calls), "cost": cost_of(calls), "possible": possible_of(calls)}
    _append(database, request_id, "done", now, data=json.dumps(data))


def delete(database: Database, request_id: str, now: int) -> None:
    """Blank the order and the answers of a request; its calls and their costs stay."""
    database.run(statements.BLANK_REQUEST, {"id": request_id, "now": now})
    database.run(statements.BLANK_CALLS, {"id": request_id})
    database.run(statements.FORGET_EVENTS, {"id": request_id})


def take_over(database: Database, dead: str, owner: str) -> list[tuple[RequestRow, list[CallRow]]]:
    """Give the open requests of a dead owner to `owner`, and return them with their calls."""
    taken = []
    for request in open_requests(database, dead):
        if database.run(statements.TAKE_OVER_REQUEST, {"id": request.id, "owner": owner, "was": dead}):
            database.run(statements.TAKE_OVER_CALLS, {"id": request.id, "owner": owner})
            taken.append((replace(request, owner=owner), calls_of(database, request.id)))
    return taken
