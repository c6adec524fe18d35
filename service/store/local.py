"""The store on a local disk: files appear by atomic rename, are locked while in use, and no link is followed."""

import asyncio
import contextlib
import hashlib
import io
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from service.errors import NotFound, OutOfDescriptors, ServiceError, StorageFull, StorageUnavailable
from service.store.descriptors import BEGIN, FINISH
from service.store.directories import Directory
from service.store.disk import (
    ABSENT,
    NO_DESCRIPTOR,
    file_digest,
    require_descriptors,
    run_or_undo,
    run_to_completion,
    storage_errors,
    with_descriptors,
)
from service.store.holds import Hold, lock_shared, open_to_lock, try_lock_exclusive
from service.store.layout import AREAS, Area, temp_key
from service.store.preparing import prepare
from service.store.scratch import Preallocated, Scratch

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An open file of the store, which can be read even after it was removed. Close it.

    `modified` is in whole seconds since 1970; `data` is the content of a file that is small enough, if asked for.
    """

    body: io.FileIO
    size: int
    etag: str
    modified: int
    data: bytes | None = None

    def head(self, size: int) -> bytes:
        """Its first bytes. Blocks for what the page cache does not have."""
        return self.piece(0, size)

    def piece(self, start: int, size: int) -> bytes:
        """At most `size` bytes from `start` on. Blocks for what the page cache does not have."""
        return os.pread(self.body.fileno(), size, start)

    def close(self) -> None:
        self.body.close()


class LocalStore(Scratch):
    """Stores files durably under keys; every disk operation runs in a thread."""

    def prepare(self) -> None:
        """Create the areas and test that they can be used; raises SettingsError."""
        prepare(self.layout, self._directories, self._modes.directory)

    async def probe(self) -> int:
        """Free space as in `free_bytes`; raises StorageUnavailable, naming the area, if one does not take a file."""
        return await asyncio.to_thread(self._probe_areas)

    def _probe_areas(self) -> int:
        for area in AREAS:
            require_descriptors(BEGIN, area)
            with storage_errors(area):
                self._directories[area].probe()
        return self._free_bytes()

    async def free_bytes(self) -> int:
        """Bytes free in the fullest area's file system, with those that `space` has preallocated."""
        return await asyncio.to_thread(self._free_bytes)

    def _free_bytes(self) -> int:
        return min(self._free_in(area) for area in AREAS)

    def _free_in(self, area: Area) -> int:
        roots = self.layout.roots
        with storage_errors(area):
            shares = roots[area].stat().st_dev == roots["temp"].stat().st_dev
            # A file preallocated or removed between these calls may be free on the disk too, and must not count twice.
            before = self._spaces.copy()
            disk = os.statvfs(roots[area])
            spaces = before.items() & self._spaces.copy().items() if shares else ()
        return disk.f_bavail * disk.f_frsize + sum(size for _, size in spaces)

    async def write(self, key: str, data: bytes, hold: Hold, space: Preallocated | None = None) -> str:
        """Store `data` durably under `key`, whole or not at all, and hold it; returns its sha256 in hex.

        With `space` it is written to a preallocated file, so that neither a full disk nor a lack of descriptors can
        lose it: data larger than that is cut where the disk is full, and if the directory takes no more names it stays
        in temp/. In both cases StorageFull is raised, whose `storage_path` says where the data is.
        """
        if space:
            self._spaces.pop(space.key, None)
        return await run_to_completion(self._write, key, data, hold, space)

    def _write(self, key: str, data: bytes, hold: Hold, space: Preallocated | None) -> str:
        area = key.partition("/")[0]
        with storage_errors(area):
            file = space or self._create(temp_key())
            try:
                written = file.write(data, cut=space is not None)
            except OSError:
                file.discard()
                raise
        self._name(file, key)
        hold.keep(file.descriptor)
        if written < len(data):
            cut = f"no space is left in {area}/: only {written} of {len(data)} bytes are kept"
            raise StorageFull(cut, storage_path=key)
        return hashlib.sha256(data).hexdigest()

    def _name(self, file: Preallocated, key: str) -> None:
        """Rename a synced file to its key, and sync the directory."""
        area = key.partition("/")[0]
        try:
            with storage_errors(area, kept=file.key):
                directory, name = self._directories.of(key)
                file.directory.rename(file.name, directory, name)
            with storage_errors(area, kept=key):
                directory.sync()
        except (StorageFull, StorageUnavailable):
            os.close(file.descriptor)
            raise

    async def publish(self, moves: list[tuple[str, str]]) -> None:
        """Atomically rename temp files, already synced, to their keys; all of them or none."""
        await asyncio.to_thread(self._publish, moves)

    def _publish(self, moves: list[tuple[str, str]]) -> None:
        done: list[tuple[Directory, str]] = []
        with storage_errors("output"):
            try:
                for temp, key in moves:
                    (source, old), (target, new) = self._directories.of(temp), self._directories.of(key)
                    # Retention counts from the publication, not from when a worker wrote the file.
                    source.touch(old)
                    source.rename(old, target, new)
                    done.append((target, new))
                for directory in {target for target, _ in done}:
                    directory.sync()
            except OSError:
                for target, new in done:
                    target.unlink(new)
                raise

    async def is_held(self, key: str) -> bool:
        """Whether a process holds the file; raises StorageUnavailable."""
        return await run_to_completion(self._is_held, key)

    def _is_held(self, key: str) -> bool:
        with storage_errors(self.layout.split(key)[0]):
            directory, name = self._directories.of(key)
            try:
                descriptor = open_to_lock(name, directory.descriptor)
            except FileNotFoundError:
                return False
            try:
                return not try_lock_exclusive(descriptor)
            finally:
                os.close(descriptor)

    async def hold_path(self, path: str, hold: Hold) -> None:
        """Hold a regular file anywhere on this machine, without blocking on a pipe.

        Raises NotFound when there is none, or when a sweep removed it meanwhile, and StorageUnavailable.
        """
        await with_descriptors(lambda: run_to_completion(self._hold_path, path, hold))

    @staticmethod
    def _hold_path(path: str, hold: Hold) -> None:
        require_descriptors(FINISH, "temp")
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise _hold_error(error) from error
        except ValueError as error:
            raise NotFound("no file can have such a name") from error
        if not S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise NotFound("it is not a regular file")
        # A file system without locks holds none of the areas, so no sweep runs there.
        with contextlib.suppress(OSError):
            lock_shared(descriptor)
        hold.keep(descriptor)
        if os.fstat(descriptor).st_nlink == 0:
            raise NotFound("the file was removed")

    async def copy_out(self, key: str, path: Path, *, overwrite: bool) -> None:
        """Copy a file out of the store. A new file is complete or not there at all; raises OSError."""
        await asyncio.to_thread(self._copy_out, key, path, overwrite)

    def _copy_out(self, key: str, path: Path, overwrite: bool) -> None:
        if overwrite:
            shutil.copyfile(self.local(key), path)
            return
        path.open("xb").close()
        try:
            shutil.copyfile(self.local(key), path)
        except OSError:
            path.unlink()
            raise

    async def digest(self, key: str) -> str:
        """The sha256 of a file, in hex; raises StorageUnavailable."""
        with storage_errors(key.partition("/")[0]):
            return await asyncio.to_thread(file_digest, self.local(key))

    async def present(self, keys: Sequence[str]) -> frozenset[str]:
        """Those of the keys under which there is a file; raises StorageUnavailable if that cannot be determined."""
        return await asyncio.to_thread(self._present, keys)

    def _present(self, keys: Sequence[str]) -> frozenset[str]:
        there = set()
        for key in keys:
            directory, name = self._directories.of(key)
            with storage_errors(key.partition("/")[0]):
                if directory.exists(name):
                    there.add(key)
        return frozenset(there)

    async def open(self, key: str, whole: int = 0) -> StoredFile:
        """Open a regular file without following a link, and read it into memory if it has at most `whole` bytes.

        Raises NotFound when there is none, and StorageUnavailable when that cannot be determined.
        """
        return await run_or_undo(StoredFile.close, self._open, key, whole)

    def _open(self, key: str, whole: int) -> StoredFile:
        area, name = self.layout.split(key)
        require_descriptors(BEGIN, area)
        with storage_errors(area):
            directory = self._directories[area]
            try:
                descriptor = directory.open(name, os.O_RDONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno in ABSENT:
                    raise NotFound(f"there is no {key}") from error
                raise
            return _stored(descriptor, key, whole)


def _hold_error(error: OSError) -> ServiceError:
    refusal = NotFound if error.errno in ABSENT else StorageUnavailable
    if error.errno in NO_DESCRIPTOR:
        refusal = OutOfDescriptors
    return refusal(f"the file cannot be opened: {error.strerror}")


def _stored(descriptor: int, key: str, whole: int) -> StoredFile:
    try:
        info = os.fstat(descriptor)
        if not S_ISREG(info.st_mode):
            raise NotFound(f"there is no {key}")
        data = os.pread(descriptor, info.st_size, 0) if info.st_size <= whole else None
    except BaseException:
        os.close(descriptor)
        raise
    etag = f'"{info.st_ino:x}-{info.st_mtime_ns:x}-{info.st_size:x}"'
    return StoredFile(io.FileIO(descriptor), info.st_size, etag, info.st_mtime_ns // 1_000_000_000, data)
