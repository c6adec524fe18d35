"""Disk helpers: OSError as StorageFull or StorageUnavailable, preallocation, and threads that outlive their caller."""

import asyncio
import contextlib
import errno
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from threading import Barrier
from typing import ParamSpec, TypeVar

from service.errors import OutOfDescriptors, StorageFull, StorageUnavailable
from service.store.descriptors import shortage, spare

P = ParamSpec("P")
T = TypeVar("T")

# Many, because they wait for the disk and not for a CPU.
DISK_THREADS = 32
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
# Errors that mean that there is no such file (ENXIO: it is a socket). After other errors, it may exist.
ABSENT = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO)
# How long work that was begun waits for descriptors, which other work closes as it finishes.
WAIT_SECONDS = 300.0
WAIT_STEP_SECONDS = 0.1
# From posix_fallocate, where neither the file system nor the C library can preallocate.
_NO_FALLOCATE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


async def start_disk_threads() -> None:
    """Start all threads of the running loop's default executor now: later there may be no memory for them.

    Raises OSError.
    """
    loop, together = asyncio.get_running_loop(), Barrier(DISK_THREADS)
    threads = ThreadPoolExecutor(DISK_THREADS, "disk")
    loop.set_default_executor(threads)
    try:
        # The executor starts a thread only while all others are busy, so each one waits for the last.
        await asyncio.gather(*(loop.run_in_executor(threads, together.wait) for _ in range(DISK_THREADS)))
    except RuntimeError as error:
        together.abort()
        raise OSError(errno.EAGAIN, f"the disk threads cannot be started: {error}") from None


@contextlib.contextmanager
def storage_errors(area: str, kept: str | None = None) -> Iterator[None]:
    """Raise an OSError as StorageFull or StorageUnavailable, which name the area and never a path.

    `kept` is their `storage_path`: the key under which the data is, although something failed.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise StorageFull(f"no space is left in {area}/", storage_path=kept) from error
        if error.errno in NO_DESCRIPTOR:
            raise OutOfDescriptors(f"{area}/ cannot be used: {shortage()}", storage_path=kept) from error
        reason = os.strerror(error.errno or errno.EIO)
        raise StorageUnavailable(f"{area}/ cannot be used: {reason}", storage_path=kept) from error


def require_descriptors(leave: int, area: str) -> None:
    """Raise OutOfDescriptors unless one can be opened with the reserve `leave` (see `descriptors`) still free."""
    if spare(leave) < 1:
        raise OutOfDescriptors(f"{area}/ cannot be used: {shortage()}")


def file_digest(path: str) -> str:
    """The sha256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _submit(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    call = partial(copy_context().run, work, *args, **kwargs)
    return asyncio.get_running_loop().run_in_executor(None, call)


async def run_to_completion(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `work` in a thread even if the caller is cancelled, when `asyncio.to_thread` might never begin it."""
    return await asyncio.shield(_submit(work, *args, **kwargs))


async def run_or_undo(undo: Callable[[T], object], work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Acquire something in a thread; if the caller is cancelled meanwhile, release it by `undo`, in a thread too."""
    running = _submit(work, *args, **kwargs)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        running.add_done_callback(partial(_undo, undo))
        raise


async def with_descriptors(work: Callable[[], Awaitable[T]]) -> T:
    """Do work that must not fail for lack of descriptors: retry for up to WAIT_SECONDS."""
    loop = asyncio.get_running_loop()
    end = loop.time() + WAIT_SECONDS
    while True:
        try:
            return await work()
        except OutOfDescriptors:
            if loop.time() > end:
                raise
        await asyncio.sleep(WAIT_STEP_SECONDS)


def _undo(undo: Callable[[T], object], done: asyncio.Future[T]) -> None:
    # RuntimeError: the loop is closing, and the process ends.
    if not done.cancelled() and done.exception() is None:
        with contextlib.suppress(RuntimeError):
            done.get_loop().run_in_executor(None, undo, done.result())


def allocate(descriptor: int, size: int) -> int:
    """Preallocate `size` bytes for a file; returns how many bytes its blocks have.

    Where the file system has no fallocate, glibc writes to every block instead, which is slower.
    """
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in _NO_FALLOCATE:
            raise
    return os.fstat(descriptor).st_blocks * 512


def write_most(descriptor: int, data: bytes | bytearray, offset: int = 0) -> tuple[int, OSError | None]:
    """Write `data` at `offset`; returns how many bytes were written, and the error if that is not all of them."""
    rest, written = memoryview(data), 0
    try:
        # One call may write less, and never writes more than 2 GiB.
        while written < len(rest):
            written += os.pwrite(descriptor, rest[written:], offset + written)
    except OSError as error:
        return written, error
    return written, None
