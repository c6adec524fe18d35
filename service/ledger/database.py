"""The interface of a database, the choice of one by DATABASE_URL, and migrations."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from service.errors import SettingsError, StorageFull, StorageUnavailable
from service.ledger import statements
from service.ledger.rows import microseconds
from service.ledger.schema import LATEST, MIGRATIONS

R = TypeVar("R")

# The SQLite files in LEDGER_DIR.
NAME = "ledger.db"
BUCKETS_NAME = "rates.db"

Values = Mapping[str, str | int | None]
NONE: Values = MappingProxyType({})


class Database(Protocol):
    """One connection, used by one thread; raises StorageFull, StorageUnavailable, and SettingsError when opened."""

    def run(self, statement: str, values: Values = NONE) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows."""
        ...

    def script(self, text: str) -> None:
        """Run several statements without parameters."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """A durable transaction; what it reads in order to write it, no other one can change meanwhile."""
        ...

    def savepoint(self) -> AbstractContextManager[None]:
        """A part of a transaction that can be rolled back alone."""
        ...

    def alive(self) -> bool:
        """Whether the connection can still be used."""
        ...

    def lock_owner(self, owner: str) -> bool:
        """Lock an owner's id until this connection ends; returns False while another process holds it."""
        ...

    def forget_owner(self, owner: str) -> None:
        """Release the lock of an owner whose row was removed."""
        ...

    def try_lock(self, name: str) -> bool:
        """Lock a name until the end of the transaction; False, without waiting, if another process has it."""

    def lock_schema(self) -> None:
        """Let one migration at a time run, until the end of its transaction."""
        ...

    def version_mark(self) -> int:
        """The schema's version where the database itself keeps one beside the table, else 0."""
        ...

    def mark_version(self, version: int) -> None:
        """Set `version_mark`."""
        ...

    def check(self) -> None:
        """Read all of it, and raise SettingsError if it is damaged; takes seconds for each GiB."""
        ...

    def maintain(self) -> None:
        """Periodic maintenance, outside a transaction."""
        ...

    def close(self) -> None: ...


def connect(url: str, directory: Path, *, read_only: bool = False) -> Database:
    """Open the ledger and migrate its tables; raises SettingsError, one line without a password.

    `url` empty: SQLite below `directory`.
    """
    database: Database
    if not url:
        from service.ledger.sqlite import SqliteDatabase

        database = SqliteDatabase(directory, read_only=read_only)
    elif not url.startswith(("postgresql://", "postgres://")):
        raise SettingsError("DATABASE_URL is not allowed: must be postgresql://user:password@host/database, or empty")
    else:
        from service.ledger.postgres import PostgresDatabase

        database = PostgresDatabase(url)
    return database if read_only else _prepared(database, migrate)


def connect_buckets(url: str, directory: Path) -> Database:
    """Open the token buckets: a file of their own, or a table of the PostgreSQL; raises as `connect` does.

    A power cut may undo what was written last.
    """
    database: Database
    if not url:
        from service.ledger.sqlite import SqliteDatabase

        database = SqliteDatabase(directory, BUCKETS_NAME, durable=False)
    else:
        from service.ledger.postgres import PostgresDatabase

        database = PostgresDatabase(url, durable=False)
    return _prepared(database, _create_buckets)


def _prepared(database: Database, prepare: Callable[[Database], None]) -> Database:
    try:
        prepare(database)
    except (SettingsError, StorageFull, StorageUnavailable) as error:
        database.close()
        # Tables that cannot be made for another reason, such as a missing right, prevent the start too.
        raise SettingsError(str(error)) from error
    return database


def _create_buckets(database: Database) -> None:
    with database.transaction():
        database.lock_schema()
        database.run(statements.CREATE_BUCKETS)
        database.run(statements.REMOVE_FULL_BUCKETS, {"now": microseconds()})


def migrate(database: Database, to: int = LATEST) -> None:
    """Bring the tables to version `to`, in one transaction; raises SettingsError if they are newer than the program."""
    with database.transaction():
        database.lock_schema()
        database.run(statements.CREATE_VERSION)
        version = max(database.run(statements.READ_VERSION)[0][0] or 0, database.version_mark())
        if version > LATEST:
            raise SettingsError(
                f"the ledger has version {version}, and this program knows {LATEST}: it was used by a newer release"
            )
        for number in range(version + 1, to + 1):
            database.script(MIGRATIONS[number - 1])
            database.run(statements.WRITE_VERSION, {"version": number})
            database.mark_version(number)


def read(database: Database, row: type[R], statement: str, values: Values = NONE) -> Iterator[R]:
    """The rows as dataclasses, whose fields are the columns of the statement in order."""
    return (row(*each) for each in database.run(statement, values))


def values_of(row: object) -> dict[str, Any]:
    """The fields of a row as named parameters."""
    return {field.name: getattr(row, field.name) for field in fields(row)}  # type: ignore[arg-type]  # a dataclass
