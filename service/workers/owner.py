"""Ownership of a pool: it is used by one event loop at a time, in the process that started its workers."""

import asyncio
import multiprocessing
import os
import threading

# The process in which pools were used. Its children by fork inherit multiprocessing's fork server, which they can
# neither use nor replace.
_pool_process: int | None = None


class Owner:
    """The event loop that a pool belongs to: futures that are awaited in another one would never wake it."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def claim(self) -> bool:
        """Make the running loop the owner; returns whether it takes over from one that is closed.

        Raises RuntimeError for a loop beside another, after a fork, and in a daemonic process.
        """
        global _pool_process
        if multiprocessing.current_process().daemon:
            raise RuntimeError("a daemonic process may have no workers: use ImageExportService in one that is not")
        if forked():
            raise RuntimeError(
                "ImageExportService was used before this process was forked:"
                " use it in the parent, or start this process with multiprocessing's spawn"
            )
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._loop is loop:
                return False
            if self._loop is not None and not self._loop.is_closed():
                raise RuntimeError("this ImageExportService is in use in another event loop: make one for each loop")
            took_over = self._loop is not None
            self._loop = loop
            _pool_process = os.getpid()
        return took_over


def forked() -> bool:
    """Whether the workers are those of a parent process."""
    return _pool_process not in (None, os.getpid())
