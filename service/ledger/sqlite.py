"""The ledger in an SQLite file, with a write-ahead log (WAL); every commit is durable.

apsw includes SQLite: the version in Python may have a bug by which two processes can corrupt a WAL (fixed in 3.51.3).
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import apsw

from service.errors import ServiceError, SettingsError, StorageFull, StorageUnavailable
from service.ledger.database import NAME, NONE, Values

BUSY_MILLISECONDS = 5000
MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs"})
# A larger file is not read whole at the start: from a slow disk a GiB takes ten seconds and more. `check` reads it.
CHECKED_BYTES = 256 * 1024 * 1024
_OWNERS = "owners"


class SqliteDatabase:
    """One connection to the file; `directory` and all files in it are accessible to this user only."""

    def __init__(self, directory: Path, name: str = NAME, *, read_only: bool = False, durable: bool = True) -> None:
        """Without `durable`, commits are not synced: a power cut may undo the last ones, but damages nothing."""
        self._directory = directory
        self._owners: dict[str, int] = {}
        path = directory / name
        try:
            if not read_only:
                _prepare(directory, path)
            flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE
            self._connection = apsw.Connection(str(path), flags=flags)
            self._connection.set_busy_timeout(BUSY_MILLISECONDS)
            if not read_only:
                self._configure("FULL" if durable else "NORMAL")
                self._check_at_start(path)
            self.run("SELECT count(*) FROM sqlite_schema")
        except OSError as error:
            raise SettingsError(f"LEDGER_DIR={str(directory)!r} cannot be used: {error.strerror}") from error
        except (apsw.Error, ServiceError) as error:
            raise SettingsError(f"LEDGER_DIR={str(directory)!r}: {path.name} cannot be used: {error}") from error

    def _configure(self, synchronous: Literal["FULL", "NORMAL"]) -> None:
        mode = self._connection.execute("PRAGMA journal_mode = WAL").get
        if mode != "wal":
            raise OSError(0, f"the write-ahead log cannot be used there (journal_mode is {mode})")
        self._connection.execute(f"PRAGMA synchronous = {synchronous}")
        self._connection.execute("PRAGMA foreign_keys = ON")

    def _check_at_start(self, path: Path) -> None:
        """Raise for a file that is cut or (unless it is large) corrupt: SQLite notices only when it reads that part."""
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        page = self._connection.execute("PRAGMA page_size").get
        # By SQLite's own descriptor: to close another of this file would release the locks of this process.
        _, header = self._connection.read("main", 0, 0, 32)
        pages = int.from_bytes(header[28:], "big")
        if pages * page > path.stat().st_size:
            raise OSError(0, f"{path.name} is cut")
        if path.stat().st_size <= CHECKED_BYTES:
            self.check()

    def check(self) -> None:
        try:
            found = self._connection.execute("PRAGMA quick_check(1)").get
        except apsw.Error as error:
            found = str(error)
        if found != "ok":
            reason = " ".join(found.split())
            raise SettingsError(f"LEDGER_DIR={str(self._directory)!r} cannot be used: {NAME} is corrupt: {reason}")

    def run(self, statement: str, values: Values = NONE) -> list[tuple[Any, ...]]:
        # Not `_translated`: a step runs ten statements, and the context manager costs as much as some of them.
        try:
            return list(self._connection.execute(statement, values or None))
        except apsw.ConstraintError:
            raise
        except apsw.Error as error:
            raise _translation(error) from error

    def script(self, text: str) -> None:
        with _translated():
            self._connection.execute(text)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        # IMMEDIATE: a transaction that reads first could not write after another process has written meanwhile.
        self.run("BEGIN IMMEDIATE")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            # After a full disk, SQLite may have rolled back already.
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
        """Take an advisory lock on a file, which the kernel releases when the process ends, for whatever reason."""
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

    def try_lock(self, name: str) -> bool:
        """Nothing: every transaction is the only one that may write."""
        return True

    def lock_schema(self) -> None:
        """Nothing: every transaction is the only one that may write."""

    def version_mark(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").get)

    def mark_version(self, version: int) -> None:
        self.run(f"PRAGMA user_version = {version:d}")

    def maintain(self) -> None:
        """Truncate the write-ahead log, which otherwise only grows while there are readers."""
        with _translated():
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._connection.close()
        while self._owners:
            os.close(self._owners.popitem()[1])


def _prepare(directory: Path, path: Path) -> None:
    """Create the directory and the file, for this user only; SQLite gives its other files the mode of the first."""
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
    # Not opened if it exists: to close it would release the locks that another connection of this process has on it.
    path.touch(0o600)
    path.chmod(0o600)


def _file_system(path: Path) -> str:
    """The kernel's name of the file system type of a path; empty if it is unknown."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in MOUNTS.read_text().splitlines():
        left, _, right = line.partition(" - ")
        if left.split()[2] == wanted:
            return right.split()[0]
    return ""


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        raise _translation(error) from error


def _translation(error: apsw.Error) -> ServiceError:
    if isinstance(error, apsw.FullError):
        return StorageFull("no space is left for the ledger")
    return StorageUnavailable(f"the ledger cannot be used: {type(error).__name__.removesuffix('Error')}")
