"""The walk of a sweep: removes old files below one directory, and nothing outside it."""

import contextlib
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from service.store.holds import open_to_lock, try_lock_exclusive

DAY_SECONDS = 86_400
MAX_DEPTH = 16
# Directory entries read before any is removed. A directory may have millions, too many for memory at once; but when
# files are removed between single reads, network file systems start reading it again.
BATCH_ENTRIES = 10_000
# Errors beyond these are only counted.
MAX_ERRORS = 20
_KEPT = ".gitkeep"


@dataclass(slots=True)
class Sweep:
    """Counts of the files that a sweep removed, or with `dry_run` would remove.

    `seen` are all files, `in_use` those that are held, `failed` those with an error.
    """

    files: int = 0
    bytes: int = 0
    in_use: int = 0
    errors: list[str] = field(default_factory=list)
    seen: int = 0
    failed: int = 0

    def fail(self, name: str, error: OSError) -> None:
        self.failed += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(f"{name}: {error.strerror}")


def sweep(
    root: Path,
    days: float,
    *,
    dry_run: bool = False,
    now: float | None = None,
    stopped: Callable[[], bool] = lambda: False,
    keep: Collection[str] = (),
    found: Callable[[str], None] = lambda name: None,
) -> Sweep:
    """Remove the files below `root` that are older than `days`; raises ValueError unless days > 0.

    The walk uses directory descriptors and follows no link, so it cannot be led outside by swapping a directory for a
    link meanwhile. Files that a request of any process holds, by a shared lock, stay, and so do those named in `keep`.
    `found` is called with the name of each file that is, or with `dry_run` would be, removed. `stopped` is called
    before every entry; True ends the walk.
    """
    if not days > 0:
        raise ValueError(f"days must be more than 0, not {days}")
    done = Sweep()
    cutoff = (time.time() if now is None else now) - days * DAY_SECONDS
    try:
        with _opened(root) as descriptor:
            _Walk(cutoff, dry_run, stopped, done, keep, found).folder(descriptor, MAX_DEPTH)
    except FileNotFoundError:
        pass
    except OSError as error:
        done.fail(root.name, error)
    return done


@dataclass(frozen=True, slots=True)
class _Walk:
    cutoff: float
    dry_run: bool
    stopped: Callable[[], bool]
    done: Sweep
    keep: Collection[str]
    found: Callable[[str], None]

    def folder(self, directory: int, depth: int) -> None:
        with os.scandir(directory) as entries:
            while batch := list(islice(entries, BATCH_ENTRIES)):
                for entry in batch:
                    if self.stopped():
                        return
                    self._entry(entry, directory, depth)

    def _entry(self, entry: os.DirEntry[str], directory: int, depth: int) -> None:
        try:
            if not entry.is_dir(follow_symlinks=False):
                self._file(entry.name, directory)
            elif depth:
                with _opened(entry.name, directory) as child:
                    self.folder(child, depth - 1)
        except FileNotFoundError:
            pass
        except OSError as error:
            self.done.fail(entry.name, error)

    def _file(self, name: str, directory: int) -> None:
        seen = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if name == _KEPT or not stat.S_ISREG(seen.st_mode):
            return
        self.done.seen += 1
        if _aged_from(seen) <= self.cutoff and name not in self.keep:
            self._remove(name, directory, seen)

    def _remove(self, name: str, directory: int, seen: os.stat_result) -> None:
        """Remove a file unless it is held, or was replaced meanwhile."""
        descriptor = open_to_lock(name, directory)
        try:
            if not try_lock_exclusive(descriptor):
                self.done.in_use += 1
                return
            opened = os.fstat(descriptor)
            if (opened.st_ino, opened.st_mtime_ns) != (seen.st_ino, seen.st_mtime_ns):
                return
            if not self.dry_run:
                os.unlink(name, dir_fd=directory)
            self.found(name)
            self.done.files += 1
            self.done.bytes += opened.st_size
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _opened(directory: Path | str, parent: int | None = None) -> Iterator[int]:
    """The descriptor of a directory; below a parent it must not be a symbolic link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if parent is None else os.O_NOFOLLOW)
    descriptor = os.open(directory, flags, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _aged_from(seen: os.stat_result) -> float:
    """When a file was last modified, or if that is in the future, when its inode last changed."""
    return seen.st_mtime if seen.st_mtime <= time.time() else seen.st_ctime
