"""Owners: each process locks its id for as long as it lives, and another can take over its requests afterwards."""

import os
import socket

from service.errors import StorageUnavailable
from service.ledger import statements
from service.ledger.database import Database, read, values_of
from service.ledger.queries import open_requests
from service.ledger.rows import OwnerRow, microseconds


def as_owner(owner: str, database: Database) -> Database:
    """Lock the owner's id for as long as this new connection lasts; closes it if that fails."""
    try:
        if not database.lock_owner(owner):
            # After a lost connection: another process takes this one for dead, and takes its requests over.
            raise StorageUnavailable("the ledger is being recovered by another process")
        row = OwnerRow(owner, socket.gethostname(), os.getpid(), microseconds())
        with database.transaction():
            database.run(statements.INSERT_OWNER, values_of(row))
    except BaseException:
        database.close()
        raise
    return database


def leave(database: Database, owner: str) -> None:
    """Remove the owner's row, unless it has open requests: another process finds the row without a lock."""
    if not open_requests(database, owner):
        bury(database, owner)


def dead_owners(database: Database, own: str) -> list[str]:
    """The other owners whose lock is free; it is taken."""
    others = list(read(database, OwnerRow, statements.READ_OWNERS, {"id": own}))
    return [other.id for other in others if database.lock_owner(other.id)]


def bury(database: Database, owner: str) -> None:
    """Remove an owner."""
    database.run(statements.REMOVE_OWNER, {"id": owner})
    database.forget_owner(owner)
