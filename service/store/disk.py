"""The disk itself: its refusals by name, blocks set aside, folders synced, work that is finished whoever leaves."""

import asyncio
import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from service.errors import StorageFull, StorageUnavailable

P = ParamSpec("P")
T = TypeVar("T")

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# Where neither the file system nor the C library can set blocks aside.
_NO_FALLOCATE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


@contextlib.contextmanager
def storage_errors(area: str) -> Iterator[None]:
    """Turn the disk's refusals into StorageFull or StorageUnavailable, naming the room and never a path."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise StorageFull(f"no space is left in {area}/") from error
        raise StorageUnavailable(f"{area}/ cannot be used: {os.strerror(error.errno or errno.EIO)}") from error


def file_digest(path: str) -> str:
    """The sha256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def run_to_completion(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """In a thread, also when the request goes away while it waits for one: then `to_thread` would leave it undone."""
    call = partial(copy_context().run, work, *args, **kwargs)
    return await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, call))


@contextlib.contextmanager
def gone_after_fault(path: Path) -> Iterator[None]:
    """Leave no half of a file that the disk refused."""
    try:
        yield
    except OSError:
        path.unlink(missing_ok=True)
        raise


def allocate(descriptor: int, size: int) -> int:
    """Make the file `size` bytes of real blocks; returns how many it has.

    Where the file system cannot, glibc writes to every block instead: slower, and as good.
    """
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in _NO_FALLOCATE:
            raise
    return os.fstat(descriptor).st_blocks * 512


def sync_directory(directory: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def probe(directory: Path) -> None:
    """Make and remove a file: permission bits alone say nothing of a read-only or vanished file system."""
    name = directory / f".probe-{secrets.token_hex(8)}"
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    name.unlink()
