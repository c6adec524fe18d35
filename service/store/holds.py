"""Holds: a file in use is locked, so that no sweep of any process takes it."""

import contextlib
import errno
import fcntl
import os
from collections.abc import AsyncIterator

from service.store.directories import Directory, probe_name


class Hold:
    """Files in use. The shared locks keep every sweep away, in this process and in others; a crash releases them."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []
        self.released = False

    def keep(self, descriptor: int) -> None:
        """Keep a locked file open until `release`; close it at once if that has been."""
        self._descriptors.append(descriptor)
        # A thread that opens files is not stopped when the request it works for is cancelled.
        if self.released:
            self.release()

    def release(self) -> None:
        self.released = True
        with contextlib.suppress(IndexError):
            while True:
                os.close(self._descriptors.pop())


@contextlib.asynccontextmanager
async def held() -> AsyncIterator[Hold]:
    """A Hold that is released at the end."""
    hold = Hold()
    try:
        yield hold
    finally:
        hold.release()


def lock_shared(descriptor: int) -> None:
    """Keep sweeps away from an open file as long as it, or a duplicate, is open; waits for one that is at it."""
    fcntl.flock(descriptor, fcntl.LOCK_SH)


def lock_alone(descriptor: int) -> bool:
    """Lock a file that nobody uses, and tell whether that was so."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_to_lock(name: str, directory: int) -> int:
    """Open a file for `lock_alone`: for writing, too, because Linux NFS locks no other exclusively.

    One that may only be read, such as another user's, can still be locked on a local disk.
    """
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(name, os.O_RDWR | flags, dir_fd=directory)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
    return os.open(name, os.O_RDONLY | flags, dir_fd=directory)


def prove_locks(directory: Directory) -> None:
    """Raise OSError unless a lock on a file here keeps sweeps out, and ends when the file is closed."""
    name = probe_name()
    with contextlib.ExitStack() as stack:
        user = stack.enter_context(os.fdopen(directory.create(name), "r+b", 0))
        stack.callback(directory.unlink, name)
        sweep = stack.enter_context(os.fdopen(directory.open(name, os.O_RDWR), "r+b", 0))
        lock_shared(user.fileno())
        kept_out = not lock_alone(sweep.fileno())
        user.close()
        if not (kept_out and lock_alone(sweep.fileno())):
            raise OSError(errno.ENOLCK, "a lock there has no effect")
