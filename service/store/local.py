"""The store on a local disk: a name is whole or absent, a file in use is locked, no link is followed."""

import asyncio
import contextlib
import hashlib
import io
import logging
import os
import shutil
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from service.errors import NotFound, SettingsError, StorageFull, StorageUnavailable
from service.store.disk import (
    allocate,
    file_digest,
    gone_after_fault,
    probe,
    run_to_completion,
    storage_errors,
    sync_directory,
)
from service.store.holds import Hold, held
from service.store.layout import AREAS, Area, Layout, temp_key

log = logging.getLogger(__name__)

_CREATE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An open file of the store: its descriptor stays good even if the name goes away. Close it.

    `modified`: whole seconds since 1970.
    `data` is the whole of it, if it was asked for and the file is small enough.
    """

    body: io.FileIO
    size: int
    etag: str
    modified: int
    data: bytes | None = None

    def close(self) -> None:
        self.body.close()


class LocalStore:
    """Keys in, durable files out; every disk operation runs in a thread."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        # Temp file -> bytes of the disk that it holds for a picture to come.
        self._spaces: dict[str, int] = {}

    def local(self, key: str) -> str:
        """The absolute path of a key, to lend to workers."""
        return str(self.layout.path(key))

    def prepare(self) -> None:
        """Make the rooms and prove that they can be used; raises SettingsError."""
        for area, root in self.layout.roots.items():
            try:
                root.mkdir(parents=True, exist_ok=True)
                probe(root)
            except OSError as error:
                name = f"{area.upper()}_DIR={str(root)!r} (below STORAGE_DIR unless set)"
                raise SettingsError(f"{name} cannot be written: {error.strerror}") from None
        resolved = {area: root.resolve() for area, root in self.layout.roots.items()}
        for area, root in resolved.items():
            for other, parent in resolved.items():
                if area != other and root.is_relative_to(parent):
                    raise SettingsError(
                        f"{area.upper()}_DIR={str(root)!r} lies in {other.upper()}_DIR: each needs its own"
                    )
        for other in ("output", "generated"):
            if resolved["temp"].stat().st_dev != resolved[other].stat().st_dev:
                raise SettingsError(
                    f"TEMP_DIR={str(resolved['temp'])!r} must be on the same file system as {other.upper()}_DIR:"
                    " files move there by rename"
                )

    async def probe(self) -> int:
        """Free space as in `free_bytes`; raises StorageUnavailable, naming the room, unless every room takes a file."""
        return await asyncio.to_thread(self._probe_areas)

    def _probe_areas(self) -> int:
        for area, root in self.layout.roots.items():
            with storage_errors(area):
                probe(root)
        return self._free_bytes()

    async def free_bytes(self) -> int:
        """Free space of the fullest file system among the rooms; what `space` holds counts as free."""
        return await asyncio.to_thread(self._free_bytes)

    def _free_bytes(self) -> int:
        return min(self._free_in(area) for area in AREAS)

    def _free_in(self, area: Area) -> int:
        roots = self.layout.roots
        with storage_errors(area):
            shares = roots[area].stat().st_dev == roots["temp"].stat().st_dev
            # One set aside or given back while the disk is looked at may be free there too: it must not count twice.
            before = self._spaces.copy()
            disk = os.statvfs(roots[area])
            spaces = before.items() & self._spaces.copy().items() if shares else ()
        return disk.f_bavail * disk.f_frsize + sum(size for _, size in spaces)

    @contextlib.asynccontextmanager
    async def space(self, size: int) -> AsyncIterator[str]:
        """The key of a temp file that holds `size` bytes of the disk for `write`; given back if nothing is written.

        Raises StorageFull. A file system that cannot set blocks aside holds none.
        """
        key = temp_key()
        self._spaces[key] = 0
        try:
            async with held() as hold:
                self._spaces[key] = await asyncio.to_thread(self._set_aside, key, size, hold)
                yield key
        finally:
            # A write takes it over, and may outlive a request that is cancelled.
            if self._spaces.pop(key, None) is not None:
                await self.remove([key])

    def _set_aside(self, key: str, size: int, hold: Hold) -> int:
        path = self.layout.path(key)
        with storage_errors("generated"), gone_after_fault(path):
            descriptor = os.open(path, _CREATE | os.O_EXCL, 0o644)
            try:
                taken = allocate(descriptor, size)
            except OSError:
                os.close(descriptor)
                raise
        hold.adopt(descriptor)
        if hold.released:
            path.unlink(missing_ok=True)
        return taken

    async def write(self, key: str, data: bytes, hold: Hold, space: str | None = None) -> str:
        """Store `data` durably under `key`, whole or not at all, and hold it; returns its sha256 in hex.

        With `space`, in the room set aside for it, however full the disk is by now. If only the name finds no room
        in its folder, the data stays in temp/, as the error's `storage_path` says.
        """
        temp = space or temp_key()
        self._spaces.pop(temp, None)
        return await run_to_completion(self._write, key, data, hold, temp)

    def _write(self, key: str, data: bytes, hold: Hold, temp: str) -> str:
        area, path, final = key.partition("/")[0], self.layout.path(temp), self.layout.path(key)
        with storage_errors(area), gone_after_fault(path):
            descriptor = os.open(path, _CREATE, 0o644)
            try:
                with os.fdopen(descriptor, "wb", closefd=False) as file:
                    file.write(data)
                    file.truncate()
                os.fsync(descriptor)
            except OSError:
                os.close(descriptor)
                raise
        hold.adopt(descriptor)
        try:
            with storage_errors(area):
                os.rename(path, final)
                sync_directory(final.parent)
        except (StorageFull, StorageUnavailable) as error:
            error.storage_path = temp if path.exists() else key
            raise
        return hashlib.sha256(data).hexdigest()

    async def reserve(self, count: int, hold: Hold) -> list[str]:
        """Make `count` empty, held files in temp/ for a worker to fill; returns their keys."""
        keys = [temp_key() for _ in range(count)]
        await asyncio.to_thread(self._reserve, keys, hold)
        return keys

    def _reserve(self, keys: list[str], hold: Hold) -> None:
        with storage_errors("temp"):
            for key in keys:
                hold.adopt(os.open(self.layout.path(key), _CREATE | os.O_EXCL, 0o644))

    async def publish(self, moves: list[tuple[str, str]]) -> None:
        """Rename temp files, already synced, to their final keys; all of them or none."""
        await asyncio.to_thread(self._publish, moves)

    def _publish(self, moves: list[tuple[str, str]]) -> None:
        done: list[Path] = []
        with storage_errors("output"):
            try:
                for temp, key in moves:
                    os.rename(self.layout.path(temp), self.layout.path(key))
                    done.append(self.layout.path(key))
                for directory in {path.parent for path in done}:
                    sync_directory(directory)
            except OSError:
                for path in done:
                    path.unlink(missing_ok=True)
                raise

    async def fill(self, key: str, data: bytes) -> str:
        """Put data into a reserved temp file, not durably; returns its sha256 in hex."""
        return await asyncio.to_thread(self._fill, key, data)

    def _fill(self, key: str, data: bytes) -> str:
        with storage_errors("temp"):
            self.layout.path(key).write_bytes(data)
        return hashlib.sha256(data).hexdigest()

    async def hold_path(self, path: str, hold: Hold) -> None:
        """Hold any regular file of this machine, without waiting for it as one would for a pipe.

        Raises NotFound when there is none, or when it went while we waited for a sweep.
        """
        await asyncio.to_thread(self._hold_path, path, hold)

    @staticmethod
    def _hold_path(path: str, hold: Hold) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise NotFound(f"the file cannot be opened: {error.strerror}") from error
        except ValueError as error:
            raise NotFound("no file can have such a name") from error
        if not S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise NotFound("it is no regular file")
        hold.adopt(descriptor)
        if os.fstat(descriptor).st_nlink == 0:
            raise NotFound("the file was removed")

    async def copy_out(self, key: str, path: Path) -> None:
        """Copy a file to a place outside the store; raises OSError."""
        await asyncio.to_thread(shutil.copyfile, self.local(key), path)

    async def remove(self, keys: Iterable[str]) -> None:
        """Remove files; what the disk refuses to give up is left to the sweep."""
        await run_to_completion(self._remove, list(keys))

    def _remove(self, keys: list[str]) -> None:
        for key in keys:
            try:
                self.layout.path(key).unlink(missing_ok=True)
            except OSError as error:
                log.warning("%s could not be removed: %s", key, error.strerror)

    async def digest(self, key: str) -> str:
        """The sha256 of a file, in hex."""
        return await asyncio.to_thread(file_digest, self.local(key))

    async def open(self, key: str, whole: int = 0) -> StoredFile:
        """Open a regular file below its room without following a link, and read it if it has at most `whole` bytes.

        Raises NotFound.
        """
        opening = asyncio.get_running_loop().run_in_executor(None, self._open, key, whole)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread is not stopped with its request, and opens the file for nobody.
            opening.add_done_callback(_close_unwanted)
            raise

    def _open(self, key: str, whole: int) -> StoredFile:
        directory, name = self.layout.split(key)
        try:
            area = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(name, flags, dir_fd=area)
            finally:
                os.close(area)
        except OSError as error:
            raise NotFound(f"there is no {key}") from error
        return _stored(descriptor, key, whole)


def _close_unwanted(opening: asyncio.Future[StoredFile]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _stored(descriptor: int, key: str, whole: int) -> StoredFile:
    try:
        info = os.fstat(descriptor)
        if not S_ISREG(info.st_mode):
            raise NotFound(f"there is no {key}")
        with storage_errors(key.partition("/")[0]):
            data = os.pread(descriptor, info.st_size, 0) if info.st_size <= whole else None
    except BaseException:
        os.close(descriptor)
        raise
    etag = f'"{info.st_ino:x}-{info.st_mtime_ns:x}-{info.st_size:x}"'
    return StoredFile(io.FileIO(descriptor), info.st_size, etag, info.st_mtime_ns // 1_000_000_000, data)
