"""Spill files in temp/, for replies that arrive while GEMINI_REPLIES_MEMORY_MB is used up."""

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

    `close` waits for a read or write in another thread, because the descriptor's number may be reused afterwards.
    """

    def __init__(self, file: Preallocated) -> None:
        self._file = file
        self._descriptor = file.descriptor
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close it, and remove it unless it was renamed."""
        with self._lock:
            self._descriptor = -1
            self._file.discard()

    def write(self, data: bytes | bytearray, offset: int) -> int:
        """Returns how many bytes were written: not all of them if the disk is full or fails."""
        with self._lock:
            written, error = write_most(self._descriptor, data, offset)
        if error:
            log.warning("a reply cannot be spilled to temp/; the rest of it stays in memory: %s", error.strerror)
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
        """fsync it; raises StorageFull or StorageUnavailable."""
        with self._lock, storage_errors("temp"):
            os.fsync(self._descriptor)


@contextlib.asynccontextmanager
async def spill_file(store: Scratch, key: str) -> AsyncIterator[SpillFile]:
    """An empty spill file, removed at the end unless it was published."""
    file = SpillFile(await store.make(key))
    try:
        yield file
    finally:
        await run_to_completion(file.close)
