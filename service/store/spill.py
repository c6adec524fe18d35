"""Files in temp/ for replies that come in while there is no memory for them."""

import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

from service.errors import StorageUnavailable
from service.store.disk import run_to_completion, storage_errors
from service.store.layout import Layout

log = logging.getLogger(__name__)


class SpillFile:
    """A file that is opened before it is needed, and locked, so that no sweep takes it. For threads.

    Closing waits for what is being written or read: the descriptor may be another file's afterwards.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._descriptor = -1
        self._closed = False

    def open(self) -> None:
        """Raises StorageFull or StorageUnavailable."""
        with self._lock, storage_errors("temp"):
            if self._closed:
                return
            # For both: network file systems lock nothing else.
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            self._descriptor = descriptor
            fcntl.flock(descriptor, fcntl.LOCK_SH)

    def close(self) -> None:
        """Close it, and remove it unless it has got another name by then."""
        with self._lock:
            self._closed = True
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
                with contextlib.suppress(OSError):
                    self._path.unlink(missing_ok=True)

    def write(self, data: bytes | bytearray, offset: int) -> int:
        """Returns how many bytes were written: fewer than all of them when the disk takes no more."""
        rest, done = memoryview(data), 0
        with self._lock:
            try:
                while done < len(rest):
                    done += os.pwrite(self._descriptor, rest[done:], offset + done)
            except OSError as error:
                log.warning("temp/ takes no more of a reply, the rest stays in memory: %s", error.strerror)
        return done

    def read(self, size: int) -> bytes:
        """The first `size` bytes; raises StorageUnavailable."""
        with self._lock, storage_errors("temp"):
            pieces, at = [], 0
            while at < size and (piece := os.pread(self._descriptor, size - at, at)):
                pieces.append(piece)
                at += len(piece)
        if at < size:
            raise StorageUnavailable("temp/ has lost a part of a reply")
        return b"".join(pieces)

    def sync(self) -> None:
        """Make its bytes durable; raises StorageFull or StorageUnavailable."""
        with self._lock, storage_errors("temp"):
            os.fsync(self._descriptor)


@contextlib.asynccontextmanager
async def spill_file(layout: Layout, key: str) -> AsyncIterator[SpillFile]:
    """An empty file, open until the end, when it is removed unless it was published."""
    file = SpillFile(layout.path(key))
    try:
        await run_to_completion(file.open)
        yield file
    finally:
        await run_to_completion(file.close)
