"""Holds: a file in use is locked, so that no sweep of any process takes it."""

import contextlib
import fcntl
import os
from collections.abc import AsyncIterator


class Hold:
    """Files in use. The shared locks keep every sweep away, in this process and in others; a crash releases them."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []
        self.released = False

    def adopt(self, descriptor: int) -> None:
        """Lock an open file and keep it open until `release`; close it at once if that has been."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        except OSError:
            os.close(descriptor)
            raise
        self.keep(descriptor)

    def keep(self, descriptor: int) -> None:
        """The same for one that is locked."""
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
