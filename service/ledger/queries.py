"""Queries: requests, calls, events and money."""

from collections.abc import Sequence
from typing import Any, Literal

from service.ledger import statements
from service.ledger.database import Database, read
from service.ledger.rows import CallRow, DayRow, EventRow, RequestRow, UsageRow

# Whose rows; None: those of all.
Principals = tuple[str, ...] | None

# The areas whose files rows name for good.
NamedArea = Literal["generated", "uploads"]

# Matches the error of a call whose raw is missing: such a call is received again when its raw is found.
MISSING = '%"code": "raw_missing"%'


def state_of(calls: Sequence[CallRow]) -> str:
    """The state of a request, by the last attempt of each variation."""
    last = {call.number: call.state for call in calls}.values()
    if any(state in ("planned", "sending", "received") for state in last):
        return "running"
    exported = sum(state == "exported" for state in last)
    if exported:
        return "succeeded" if exported == len(last) else "partial"
    return "cancelled" if all(state == "cancelled" for state in last) else "failed"


def cost_of(calls: Sequence[CallRow]) -> int:
    return sum(call.cost or 0 for call in calls)


def possible_of(calls: Sequence[CallRow]) -> int:
    """The sum of the list prices of calls that are out or whose outcome is unknown."""
    return sum(call.list_price or 0 for call in calls if call.state in ("sending", "unknown"))


def calls_of(database: Database, request_id: str) -> list[CallRow]:
    return list(read(database, CallRow, statements.READ_CALLS, {"id": request_id}))


def request_with_calls(database: Database, request_id: str) -> tuple[RequestRow, list[CallRow]] | None:
    request = next(read(database, RequestRow, statements.READ_REQUEST, {"id": request_id}), None)
    return None if request is None or request.deleted else (request, calls_of(database, request_id))


def newest_of_key(
    database: Database, principals: Principals, route: str, key: str
) -> tuple[RequestRow, list[CallRow]] | None:
    statement, values = statements.of_principals(statements.NEWEST_OF_KEY, principals)
    found = read(database, RequestRow, statement, {**values, "route": route, "idempotency_key": key})
    request = next(found, None)
    return (request, calls_of(database, request.id)) if request else None


def newest(
    database: Database, principals: Principals, limit: int, before: RequestRow | None = None
) -> list[tuple[RequestRow, list[CallRow]]]:
    """The newest requests, those older than `before`, and their calls."""
    statement, own = statements.of_principals(statements.NEWEST_BEFORE if before else statements.NEWEST, principals)
    values: dict[str, Any] = {**own, "limit": limit}
    if before:
        values |= {"created": before.created, "id": before.id}
    return [
        (request, calls_of(database, request.id)) for request in list(read(database, RequestRow, statement, values))
    ]


def events_after(database: Database, request_id: str, after: int, limit: int) -> list[EventRow]:
    return list(read(database, EventRow, statements.READ_EVENTS, {"id": request_id, "after": after, "limit": limit}))


def money_of(database: Database, principals: tuple[str, ...], day: str) -> DayRow:
    """The money of these principals on a day; that of all has the principal ''."""
    statement, values = statements.of_principals(statements.SUM_DAYS, principals)
    return next(read(database, DayRow, statement, {**values, "day": day}))


def usage(database: Database, principals: Principals, first: str, last: str, *, by_name: bool) -> list[UsageRow]:
    kind = statements.USAGE_BY_NAME if by_name else statements.USAGE
    statement, values = statements.of_principals(kind, principals)
    return list(read(database, UsageRow, statement, {**values, "first": first, "last": last}))


def open_requests(database: Database, owner: str) -> list[RequestRow]:
    return list(read(database, RequestRow, statements.OPEN_REQUESTS_OF, {"owner": owner}))


def healable(database: Database, limit: int) -> list[tuple[RequestRow, CallRow]]:
    """Calls that ended without a picture, but whose picture may exist, with their requests; the newest first."""
    calls = list(read(database, CallRow, statements.HEALABLE, {"missing": MISSING, "limit": limit}))
    found = [(request_with_calls(database, call.request_id), call) for call in calls]
    return [(request[0], call) for request, call in found if request]


def sending(database: Database) -> list[tuple[str, int]]:
    """Request id and number of each call that is out."""
    return [(request_id, number) for request_id, number in database.run(statements.SENDING)]


def unnamed(database: Database, area: NamedArea, names: Sequence[str]) -> list[str]:
    """Those of the files in an area that no row names; each name begins with the id of its request."""
    statement = statements.NAMES_RAW if area == "generated" else statements.NAMES_UPLOAD
    keys = {name: {"id": name.rpartition("_")[0], "key": f"{area}/{name}"} for name in names}
    return [name for name, values in keys.items() if not database.run(statement, values)]


def protected(database: Database) -> set[str]:
    """Keys that no sweep may remove."""
    rows = database.run(statements.RECEIVED_RAWS) + database.run(statements.UNFINISHED_UPLOADS)
    return {key for (key,) in rows}
