"""The ledger in an SQLite file: write-ahead log, every commit durable.

apsw brings an SQLite of its own: Python's may be one whose write-ahead log two processes can corrupt (fixed in 3.51.3).
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from service.errors import ServiceError, SettingsError, StorageFull, StorageUnavailable
from service.ledger.database import NAME, NONE, Values

BUSY_MILLISECONDS = 5000
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs"})
_OWNERS = "owners"


class SqliteDatabase:
    """`directory` and all in it are the user's alone, whatever the umask is."""

    def __init__(self, directory: Path, *, read_only: bool = False) -> None:
        self._directory = directory
        self._owners: dict[str, int] = {}
        path = directory / NAME
        try:
            if not read_only:
                _prepare(directory, path)
            flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE
            self._connection = apsw.Connection(str(path), flags=flags)
            self._connection.set_busy_timeout(BUSY_MILLISECONDS)
            if not read_only:
                self._configure()
                self._check_length(path)
            self.run("SELECT count(*) FROM sqlite_schema")
        except OSError as error:
            raise SettingsError(f"LEDGER_DIR={str(directory)!r} cannot be used: {error.strerror}") from error
        except (apsw.Error, ServiceError) as error:
            raise SettingsError(f"LEDGER_DIR={str(directory)!r}: {path.name} cannot be used: {error}") from error

    def _configure(self) -> None:
        mode = self._connection.execute("PRAGMA journal_mode = WAL").get
        if mode != "wal":
            raise OSError(0, f"the write-ahead log cannot be used there (journal_mode is {mode})")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")

    def _check_length(self, path: Path) -> None:
        """SQLite would find out only when it reads what a cut file lacks."""
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        page = self._connection.execute("PRAGMA page_size").get
        with path.open("rb") as file:
            pages = int.from_bytes(file.read(32)[28:], "big")
        if pages * page > path.stat().st_size:
            raise OSError(0, f"{path.name} is cut")

    def run(self, statement: str, values: Values = NONE) -> list[tuple[Any, ...]]:
        with _translated():
            return list(self._connection.execute(statement, values))

    def script(self, text: str) -> None:
        with _translated():
            self._connection.execute(text)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        # Taken at once: a read that becomes a write later could find that another process wrote in between.
        self.run("BEGIN IMMEDIATE")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            # A full disk may have ended it already.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        self.run("SAVEPOINT step")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK TO step")
                self._connection.execute("RELEASE step")
            raise
        self.run("RELEASE step")

    def alive(self) -> bool:
        return True

    def lock_owner(self, owner: str) -> bool:
        """A lock on a file: it ends with the process, however that ends, and not before."""
        if owner in self._owners:
            return True
        descriptor = os.open(self._owner(owner), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._owners[owner] = descriptor
        return True

    def forget_owner(self, owner: str) -> None:
        self._owner(owner).unlink(missing_ok=True)
        if owner in self._owners:
            os.close(self._owners.pop(owner))

    def _owner(self, owner: str) -> Path:
        return self._directory / _OWNERS / owner

    def maintain(self) -> None:
        """Let the write-ahead log begin anew, or it would grow for as long as there are readers."""
        with _translated():
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._connection.close()
        while self._owners:
            os.close(self._owners.popitem()[1])


def _prepare(directory: Path, path: Path) -> None:
    """Make the directory and the file, private; SQLite gives its other files the same mode."""
    for each in (*reversed(directory.parents), directory, directory / _OWNERS):
        if not each.exists():
            each.mkdir(exist_ok=True)
            each.chmod(0o700)
    directory.chmod(0o700)
    if (kind := _file_system(directory)) in _NETWORK:
        raise SettingsError(
            f"LEDGER_DIR={str(directory)!r} is on a network file system ({kind}), where SQLite loses data:"
            " put it on a local disk, or set DATABASE_URL to a PostgreSQL"
        )
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _file_system(path: Path) -> str:
    """The type of the file system that a path lies on, as the kernel names it; empty if it cannot be told."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if left.split()[2] == wanted:
            return right.split()[0]
    return ""


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except apsw.FullError as error:
        raise StorageFull("no space is left for the ledger") from error
    except apsw.ConstraintError:
        raise
    except apsw.Error as error:
        raise StorageUnavailable(f"the ledger cannot be used: {type(error).__name__.removesuffix('Error')}") from error
