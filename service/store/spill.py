"""Files in temp/ for replies that come in while there is no memory for them."""

import contextlib
import logging
import os
import threading
from collections.abc import AsyncIterator

from service.errors import StorageUnavailable
from service.store.disk import run_to_completion, storage_errors, write_most
from service.store.scratch import Preallocated, Scratch

log = logging.getLogger(__name__)


class SpillFile:
    """A temp file, opened before it is needed. Its methods block.

    Closing waits for what is being written or read: the descriptor may be another file's afterwards.
    """

    def __init__(self, file: Preallocated) -> None:
        self._file = file
        self._descriptor = file.descriptor
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close it, and remove it unless it has got another name by then."""
        with self._lock:
            self._descriptor = -1
            self._file.discard()

    def write(self, data: bytes | bytearray, offset: int) -> int:
        """Returns how many bytes were written: fewer than all of them when the disk takes no more."""
        with self._lock:
            written, error = write_most(self._descriptor, data, offset)
        if error:
            log.warning("temp/ takes no more of a reply, the rest stays in memory: %s", error.strerror)
        return written

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
async def spill_file(store: Scratch, key: str) -> AsyncIterator[SpillFile]:
    """An empty file, open until the end, when it is removed unless it was published."""
    file = SpillFile(await store.make(key))
    try:
        yield file
    finally:
        await run_to_completion(file.close)
