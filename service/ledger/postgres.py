"""The ledger in PostgreSQL (extra `postgres`): for several machines, or where one is running anyway."""

import contextlib
import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from service.errors import SettingsError, StorageFull, StorageUnavailable
from service.ledger.database import NONE, Values

try:
    import psycopg
    from psycopg import errors
    from psycopg.conninfo import conninfo_to_dict
except ImportError:
    raise SettingsError(
        "DATABASE_URL is set, but the extra postgres is not installed: pip install '.[postgres]'"
    ) from None

CONNECT_SECONDS = 10
# A lock of another session, or a network that drops packets, must not stop all requests for longer.
LOCK_MILLISECONDS = 5000
NETWORK_MILLISECONDS = 10_000
OLDEST = 14
# Any number that is no owner's, which are random.
SCHEMA_LOCK = 1
_PARAMETER = re.compile(r":([a-z][a-z0-9_]*)")


class PostgresDatabase:
    """One session; when it ends, for whatever reason, PostgreSQL releases the lock of its owner."""

    def __init__(self, url: str, *, durable: bool = True) -> None:
        """Without `durable`, commits do not wait for the disk: a crash of the server may undo the last ones."""
        try:
            self._connection = psycopg.connect(
                url, autocommit=True, connect_timeout=CONNECT_SECONDS, tcp_user_timeout=NETWORK_MILLISECONDS
            )
            self._connection.execute(f"SET lock_timeout = {LOCK_MILLISECONDS}".encode())
            if not durable:
                self._connection.execute("SET synchronous_commit = off")
        except psycopg.OperationalError as error:
            reason = _without_password(" ".join(str(error).split()), url)
            raise SettingsError(f"DATABASE_URL: the database is not reachable: {reason}") from None
        except (psycopg.Error, ValueError):
            # The message may quote any part of the address, its password too.
            raise SettingsError("DATABASE_URL is not allowed: it is no address that PostgreSQL can read") from None
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
        """Take an advisory lock of the session."""
        return bool(self.run("SELECT pg_try_advisory_lock(:number)", {"number": _lock_number(owner)})[0][0])

    def forget_owner(self, owner: str) -> None:
        self.run("SELECT pg_advisory_unlock(:number)", {"number": _lock_number(owner)})

    def try_lock(self, name: str) -> bool:
        """Take an advisory lock of the transaction."""
        number = _lock_number(hashlib.sha256(name.encode()).hexdigest())
        return bool(self.run("SELECT pg_try_advisory_xact_lock(:number)", {"number": number})[0][0])

    def lock_schema(self) -> None:
        self.run("SELECT pg_advisory_xact_lock(:number)", {"number": SCHEMA_LOCK})

    def version_mark(self) -> int:
        """None beside the table."""
        return 0

    def mark_version(self, version: int) -> None:
        """Nothing: the table is enough."""

    def check(self) -> None:
        """Nothing: PostgreSQL has its own checks."""

    def maintain(self) -> None:
        """Nothing: PostgreSQL has its own maintenance."""

    def close(self) -> None:
        self._connection.close()


def _lock_number(owner: str) -> int:
    return int.from_bytes(bytes.fromhex(owner)[:8], "big", signed=True)


@lru_cache(maxsize=256)
def _named(statement: str) -> bytes:
    """The statement with its `:name` parameters in the form of psycopg."""
    return _PARAMETER.sub(r"%(\1)s", statement).encode()


def _without_password(text: str, url: str) -> str:
    """Without the password of the address, as it is written there and as PostgreSQL reads it."""
    password = conninfo_to_dict(url).get("password")
    for spelling in (str(password), quote(str(password), safe="")) if password else ():
        text = text.replace(spelling, "…")
    return text


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
