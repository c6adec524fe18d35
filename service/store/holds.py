"""Holds: files in use are locked (flock), so that no sweep of any process removes them."""

import contextlib
import errno
import fcntl
import os
from collections.abc import AsyncIterator

from service.store.directories import Directory, probe_name


class Hold:
    """Files in use, under shared advisory locks, which exclude the sweeps of all processes; a crash releases them."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []
        self.released = False

    def keep(self, descriptor: int) -> None:
        """Keep the descriptor of a locked file open until `release`, or close it now if that was called already."""
        self._descriptors.append(descriptor)
        # The thread that opened it does not stop when its request is cancelled.
        if self.released:
            self.release()

    def release(self) -> None:
        self.released = True
        with contextlib.suppress(IndexError):
            while True:
                os.close(self._descriptors.pop())


@contextlib.asynccontextmanager
async def held() -> AsyncIterator[Hold]:
    """A Hold, released at the end."""
    hold = Hold()
    try:
        yield hold
    finally:
        hold.release()


def lock_shared(descriptor: int) -> None:
    """Lock an open file against sweeps until it and its duplicates are closed; blocks while a sweep has it locked."""
    fcntl.flock(descriptor, fcntl.LOCK_SH)


def try_lock_exclusive(descriptor: int) -> bool:
    """Lock a file against holds; False if it is held."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_to_lock(name: str, directory: int) -> int:
    """Open a file for `try_lock_exclusive`: for writing too, without which Linux NFS grants no exclusive lock.

    A file that may only be read, such as another user's, can still be locked on a local disk.
    """
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(name, os.O_RDWR | flags, dir_fd=directory)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
    return os.open(name, os.O_RDONLY | flags, dir_fd=directory)


def prove_locks(directory: Directory) -> None:
    """Raise OSError unless locks work here: a shared one excludes an exclusive one, until its file is closed."""
    name = probe_name()
    with contextlib.ExitStack() as stack:
        user = stack.enter_context(os.fdopen(directory.create(name), "r+b", 0))
        stack.callback(directory.unlink, name)
        sweep = stack.enter_context(os.fdopen(directory.open(name, os.O_RDWR), "r+b", 0))
        lock_shared(user.fileno())
        kept_out = not try_lock_exclusive(sweep.fileno())
        user.close()
        if not (kept_out and try_lock_exclusive(sweep.fileno())):
            raise OSError(errno.ENOLCK, "a lock there has no effect")
