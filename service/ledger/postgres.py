"""The ledger in PostgreSQL, for several machines or whoever has one already (extra `postgres`)."""

import contextlib
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from service.errors import SettingsError, StorageFull, StorageUnavailable
from service.ledger.database import NONE, Values

try:
    import psycopg
    from psycopg import errors
except ImportError:
    raise SettingsError(
        "DATABASE_URL is set, but the extra postgres is not installed: pip install '.[postgres]'"
    ) from None

CONNECT_SECONDS = 10
OLDEST = 14
_PARAMETER = re.compile(r":([a-z][a-z0-9_]*)")


class PostgresDatabase:
    """One session, whose end, however it comes, ends the owner lock."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url).hostname or "its host"
        try:
            self._connection = psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_SECONDS)
        except psycopg.Error as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SettingsError(f"DATABASE_URL: {where} is not reachable: {_without_password(reason, url)}") from None
        if self._connection.info.server_version < OLDEST * 10_000:
            raise SettingsError(f"DATABASE_URL: PostgreSQL {OLDEST} or newer is needed")

    def run(self, statement: str, values: Values = NONE) -> list[tuple[Any, ...]]:
        with _translated():
            cursor = self._connection.execute(_named(statement), values)
            return cursor.fetchall() if cursor.description else []

    def script(self, text: str) -> None:
        with _translated():
            self._connection.execute(text.encode())

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        with _translated(), self._connection.transaction():
            yield

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        with _translated(), self._connection.transaction():
            yield

    def alive(self) -> bool:
        return not (self._connection.closed or self._connection.broken)

    def lock_owner(self, owner: str) -> bool:
        """An advisory lock of the session."""
        return bool(self.run("SELECT pg_try_advisory_lock(:number)", {"number": _lock_number(owner)})[0][0])

    def forget_owner(self, owner: str) -> None:
        self.run("SELECT pg_advisory_unlock(:number)", {"number": _lock_number(owner)})

    def maintain(self) -> None:
        """PostgreSQL looks after itself."""

    def close(self) -> None:
        self._connection.close()


def _lock_number(owner: str) -> int:
    return int.from_bytes(bytes.fromhex(owner)[:8], "big", signed=True)


@lru_cache(maxsize=256)
def _named(statement: str) -> bytes:
    """`:name` as psycopg spells it."""
    return _PARAMETER.sub(r"%(\1)s", statement).encode()


def _without_password(text: str, url: str) -> str:
    password = urlsplit(url).password
    return text.replace(password, "…") if password else text


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except errors.DiskFull as error:
        raise StorageFull("no space is left for the ledger") from error
    except errors.IntegrityError:
        raise
    except psycopg.Error as error:
        raise StorageUnavailable(f"the ledger cannot be used: {type(error).__name__}") from error
