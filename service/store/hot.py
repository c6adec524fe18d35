"""Hot files: files of the store kept open, small ones in memory, each looked at again before it is used."""

import os
from collections import OrderedDict
from dataclasses import dataclass

from service.store.descriptors import CACHE, limit, spare
from service.store.local import StoredFile

# The share of this process's descriptors that kept files may have at most.
SHARE = 8
# What a file counts for at least: it keeps a descriptor open, and those are few.
LEAST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Kept:
    file: StoredFile
    mark: tuple[int, int]


class HotFiles:
    """The files used last, with data of at most `max_bytes` together and an eighth of the descriptors.

    Each keeps its descriptor: one fstat, which never waits for the disk, tells whether the file is still what it was
    and under as many names. One that was swept or replaced is not found, from that moment on.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def get(self, key: str) -> StoredFile | None:
        """The file, if it is kept and unchanged."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if _mark(kept.file) != kept.mark:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept.file

    def keep(self, key: str, file: StoredFile) -> None:
        """Take over an open file; it is closed when others were used later."""
        self._drop(key)
        self._kept[key] = _Kept(file, _mark(file))
        self._bytes += _cost(file)
        while self._bytes > self._max_bytes:
            self._drop_oldest()
        self.make_way()

    def make_way(self) -> None:
        """Close those used least lately as far as descriptors are short."""
        for _ in range(max(len(self._kept) - limit() // SHARE, -spare(CACHE))):
            if self._kept:
                self._drop_oldest()

    def forget_removed(self) -> None:
        """Close what was swept or replaced, so that the disk gets its space back."""
        for key in list(self._kept):
            self.get(key)

    def close(self) -> None:
        for key in list(self._kept):
            self._drop(key)

    def _drop_oldest(self) -> None:
        self._drop(next(iter(self._kept)))

    def _drop(self, key: str) -> None:
        kept = self._kept.pop(key, None)
        if kept:
            self._bytes -= _cost(kept.file)
            kept.file.close()


def _mark(file: StoredFile) -> tuple[int, int]:
    """Removing, renaming and writing all change it."""
    info = os.fstat(file.body.fileno())
    return info.st_nlink, info.st_ctime_ns


def _cost(file: StoredFile) -> int:
    return max(len(file.data or b""), LEAST_BYTES)
