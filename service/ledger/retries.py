"""Automatic retries, which clients send without an idempotency key: which request they repeat."""

from service.errors import Busy
from service.ledger import statements
from service.ledger.database import Database, Values, read
from service.ledger.rows import RequestRow

# How long after its end a request is given to automatic retries, in microseconds.
JOINABLE = 15 * 60 * 1_000_000


def join(database: Database, principals: tuple[str, ...], route: str, fingerprint: str, now: int) -> RequestRow | None:
    """The request that an automatic retry repeats: of those with this body, the one whose client most likely waits.

    That is the oldest one whose answer was not delivered and that was given to no retry yet, else the newest. Raises
    Busy while another process does the same for this body: neither sees what the other is about to write.
    """
    if not database.try_lock(f"{principals[0]} {route} {fingerprint}"):
        raise Busy("another retry of this request is being taken up")
    values: Values = {"route": route, "fingerprint": fingerprint, "ended_after": now - JOINABLE}
    for each in (statements.OLDEST_UNDELIVERED, statements.NEWEST_JOINABLE):
        statement, own = statements.of_principals(each, principals)
        if found := next(read(database, RequestRow, statement, {**values, **own}), None):
            database.run(statements.JOIN_REQUEST, {"id": found.id, "now": now})
            return found
    return None


def deliver(database: Database, request_id: str, now: int) -> None:
    """Note that a client received the answer in whole."""
    database.run(statements.DELIVER_REQUEST, {"id": request_id, "now": now})
