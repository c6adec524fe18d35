"""Scratch files: preallocated and temporary files on the local disk, locked against sweeps."""

import contextlib
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from functools import partial
from io import BufferedWriter

from service.store.descriptors import BEGIN, FINISH
from service.store.directories import Directories, Directory
from service.store.disk import (
    NO_SPACE,
    allocate,
    require_descriptors,
    run_or_undo,
    run_to_completion,
    storage_errors,
    with_descriptors,
    write_most,
)
from service.store.holds import Hold, lock_shared
from service.store.layout import PRIVATE, Layout, Modes, temp_key

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Preallocated:
    """An open, locked temp file with `allocated` bytes of preallocated disk, for one file that will be stored.

    Storing it needs no further descriptor and no further block, so a process short of either still can.
    """

    key: str
    name: str
    directory: Directory
    descriptor: int
    allocated: int = 0

    def write(self, data: bytes, *, cut: bool = False) -> int:
        """Store `data` durably; returns its length, or with `cut` how much of it a full disk took. Raises OSError."""
        written, error = write_most(self.descriptor, data)
        if error and not (cut and written and error.errno in NO_SPACE):
            raise error
        os.ftruncate(self.descriptor, written)
        os.fsync(self.descriptor)
        return written

    def discard(self) -> None:
        """Remove and close it; if it cannot be removed, that is left to the sweep."""
        try:
            self.directory.unlink(self.name)
        except OSError as error:
            log.warning("%s could not be removed: %s", self.key, error.strerror)
        os.close(self.descriptor)


class Scratch:
    """Files by key that are being made: always on the local disk, wherever finished files are stored."""

    def __init__(self, layout: Layout, modes: Modes = PRIVATE) -> None:
        self.layout = layout
        self._modes = modes
        self._directories = Directories(layout)
        # Key of a preallocated temp file -> the bytes it has.
        self._spaces: dict[str, int] = {}

    def local(self, key: str) -> str:
        """The absolute path of a key, for workers."""
        return str(self.layout.path(key))

    @contextlib.asynccontextmanager
    async def space(self, size: int, key: str | None = None) -> AsyncIterator[Preallocated]:
        """A temp file, under `key` or a random one, with `size` bytes of the disk preallocated.

        It is removed unless `write` takes it over. Raises StorageFull, StorageUnavailable. A file system that cannot
        preallocate gives an empty one.
        """
        key = key or temp_key()
        self._spaces[key] = 0
        try:
            made = await run_or_undo(Preallocated.discard, self._preallocate, key, size)
        except BaseException:
            del self._spaces[key]
            raise
        self._spaces[key] = made.allocated
        try:
            yield made
        finally:
            # Unless a write has taken it over, which goes on even if the request is cancelled.
            if self._spaces.pop(key, None) is not None:
                await run_to_completion(made.discard)

    def _preallocate(self, key: str, size: int) -> Preallocated:
        require_descriptors(BEGIN, "generated")
        with storage_errors("generated"):
            made = self._create(key)
            try:
                made.allocated = allocate(made.descriptor, size) if size else 0
            except OSError:
                made.discard()
                raise
        return made

    async def make(self, key: str) -> Preallocated:
        """Create an empty, locked file; discard it. Raises StorageFull, StorageUnavailable."""
        return await run_or_undo(Preallocated.discard, self._make, key)

    def _make(self, key: str) -> Preallocated:
        require_descriptors(BEGIN, "temp")
        with storage_errors("temp"):
            return self._create(key)

    def _create(self, key: str) -> Preallocated:
        directory, name = self._directories.of(key)
        made = Preallocated(key, name, directory, directory.create(name, self._modes.file))
        try:
            lock_shared(made.descriptor)
        except OSError:
            made.discard()
            raise
        return made

    async def create(self, key: str, hold: Hold) -> BufferedWriter:
        """Create a held file to be written in pieces; close it. Raises StorageFull, StorageUnavailable."""
        return await run_or_undo(partial(self._undo_create, key), self._create_held, key, hold)

    def _create_held(self, key: str, hold: Hold) -> BufferedWriter:
        area = key.partition("/")[0]
        require_descriptors(BEGIN, area)
        with storage_errors(area):
            made = self._create(key)
            try:
                hold.keep(os.dup(made.descriptor))
            except OSError:
                made.discard()
                raise
        return os.fdopen(made.descriptor, "wb")

    def _undo_create(self, key: str, file: BufferedWriter) -> None:
        file.close()
        self._remove([key])

    async def reserve(self, count: int, hold: Hold) -> list[str]:
        """Create `count` empty, held files in temp/ for a worker to fill; returns their keys. Waits for descriptors."""
        made = await with_descriptors(lambda: run_or_undo(_discard_all, self._reserve, count))
        for file in made:
            hold.keep(file.descriptor)
        return [file.key for file in made]

    def _reserve(self, count: int) -> list[Preallocated]:
        made: list[Preallocated] = []
        require_descriptors(FINISH + count, "temp")
        with storage_errors("temp"):
            try:
                made.extend(self._create(temp_key()) for _ in range(count))
            except OSError:
                _discard_all(made)
                raise
        return made

    async def fill(self, key: str, data: bytes) -> str:
        """Write data to a reserved temp file, without fsync; returns its sha256 in hex."""
        return await with_descriptors(lambda: run_to_completion(self._fill, key, data))

    def _fill(self, key: str, data: bytes) -> str:
        with storage_errors("temp"):
            directory, name = self._directories.of(key)
            with os.fdopen(directory.open(name, os.O_WRONLY | os.O_TRUNC), "wb") as file:
                file.write(data)
        return hashlib.sha256(data).hexdigest()

    async def remove(self, keys: Iterable[str]) -> None:
        """Remove files; those that cannot be removed are left to the sweep."""
        await run_to_completion(self._remove, list(keys))

    def _remove(self, keys: list[str]) -> None:
        for key in keys:
            try:
                directory, name = self._directories.of(key)
                directory.unlink(name)
            except OSError as error:
                log.warning("%s could not be removed: %s", key, error.strerror)


def _discard_all(files: list[Preallocated]) -> None:
    for file in files:
        file.discard()
