"""An LRU cache of open files, small ones with their data; each is checked by fstat before it is used."""

import os
from collections import OrderedDict
from dataclasses import dataclass

from service.store.descriptors import CACHE, limit, spare
from service.store.local import StoredFile

# Cached files may use one in this many of the process's descriptors.
SHARE = 8
# A file counts at least this much against `max_bytes`, because it takes a descriptor too.
MIN_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Entry:
    file: StoredFile
    version: tuple[int, int]


class HotFiles:
    """The files used most recently, with at most `max_bytes` of data and an eighth of the descriptors in total.

    Each stays open: one fstat, which never waits for the disk, shows whether it has changed or lost its name. A file
    that was swept or replaced is a miss from that moment on.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def get(self, key: str) -> StoredFile | None:
        """The file, if it is cached and unchanged."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if _version(entry.file) != entry.version:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.file

    def keep(self, key: str, file: StoredFile) -> None:
        """Take over an open file, and close it when it is evicted."""
        self._drop(key)
        self._entries[key] = _Entry(file, _version(file))
        self._bytes += _cost(file)
        while self._bytes > self._max_bytes:
            self._evict()
        self.free_descriptors()

    def free_descriptors(self) -> None:
        """Evict files while descriptors are short."""
        for _ in range(max(len(self._entries) - limit() // SHARE, -spare(CACHE))):
            if self._entries:
                self._evict()

    def forget_removed(self) -> None:
        """Close files that were swept or replaced, which frees their disk space."""
        for key in list(self._entries):
            self.get(key)

    def close(self) -> None:
        for key in list(self._entries):
            self._drop(key)

    def _evict(self) -> None:
        """Drop the least recently used file."""
        self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry:
            self._bytes -= _cost(entry.file)
            entry.file.close()


def _version(file: StoredFile) -> tuple[int, int]:
    """Changes when the file is removed, renamed or written to."""
    info = os.fstat(file.body.fileno())
    return info.st_nlink, info.st_ctime_ns


def _cost(file: StoredFile) -> int:
    return max(len(file.data or b""), MIN_BYTES)
