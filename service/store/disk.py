"""Disk helpers: OSError as StorageFull or StorageUnavailable, preallocation, and threads that outlive their caller."""

import asyncio
import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

from service.errors import StorageFull, StorageUnavailable

P = ParamSpec("P")
T = TypeVar("T")

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# What says that there is no such file (ENXIO: a socket has the name); all else says that nobody can tell.
ABSENT = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO)
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


def _submit(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    call = partial(copy_context().run, work, *args, **kwargs)
    return asyncio.get_running_loop().run_in_executor(None, call)


async def run_to_completion(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """In a thread, also when the request goes away while it waits for one: then `to_thread` would leave it undone."""
    return await asyncio.shield(_submit(work, *args, **kwargs))


async def run_or_undo(undo: Callable[[T], object], work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Acquire something in a thread; if the caller is cancelled meanwhile, a thread calls `undo` with it."""
    running = _submit(work, *args, **kwargs)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        running.add_done_callback(partial(_undo, undo))
        raise


def _undo(undo: Callable[[T], object], done: asyncio.Future[T]) -> None:
    # RuntimeError: the loop is closing, and the process with it.
    if not done.cancelled() and done.exception() is None:
        with contextlib.suppress(RuntimeError):
            done.get_loop().run_in_executor(None, undo, done.result())


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


def write_all(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`: one call may take less, and never more than 2 GiB."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written
