"""What the ledger asks of a database, and which one DATABASE_URL means."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from service.errors import SettingsError
from service.ledger import statements
from service.ledger.schema import LATEST, MIGRATIONS

R = TypeVar("R")

# Of the SQLite file, in LEDGER_DIR.
NAME = "ledger.db"

Values = Mapping[str, str | int | None]
NONE: Values = MappingProxyType({})


class Database(Protocol):
    """One connection, for one thread. Its errors are StorageFull and StorageUnavailable; SettingsError at the start."""

    def run(self, statement: str, values: Values = NONE) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows."""
        ...

    def script(self, text: str) -> None:
        """Run several statements without parameters."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """A durable transaction that lets nobody else write meanwhile what it has read to write."""
        ...

    def savepoint(self) -> AbstractContextManager[None]:
        """A part of a transaction that can fail alone."""
        ...

    def alive(self) -> bool:
        """Whether the connection can still be used."""
        ...

    def lock_owner(self, owner: str) -> bool:
        """Lock an owner's id until this connection ends, however it does; False while another process has it."""
        ...

    def forget_owner(self, owner: str) -> None:
        """Unlock an owner's id that nobody will ask for again."""
        ...

    def maintain(self) -> None:
        """What has to be done now and then, outside a transaction."""
        ...

    def close(self) -> None: ...


def connect(url: str, directory: Path, *, read_only: bool = False) -> Database:
    """Open the ledger, bring its tables up to date; raises SettingsError, one line without a password.

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
    if not read_only:
        migrate(database)
    return database


def migrate(database: Database, to: int = LATEST) -> None:
    """Bring the tables to a version, in one transaction; raises SettingsError when they are newer than this program."""
    with database.transaction():
        database.run(statements.CREATE_VERSION)
        version = database.run(statements.READ_VERSION)[0][0] or 0
        if version > LATEST:
            raise SettingsError(
                f"the ledger has version {version}, and this program knows {LATEST}: it was used by a newer release"
            )
        for number in range(version + 1, to + 1):
            database.script(MIGRATIONS[number - 1])
            database.run(statements.WRITE_VERSION, {"version": number})


def read(database: Database, row: type[R], statement: str, values: Values = NONE) -> Iterator[R]:
    """Rows as dataclasses: the statement names their fields in order."""
    return (row(*each) for each in database.run(statement, values))


def values_of(row: object) -> dict[str, Any]:
    """A row's dataclass as named parameters."""
    return {field.name: getattr(row, field.name) for field in fields(row)}  # type: ignore[arg-type]  # a dataclass
