"""The walk of a sweep: removes the old files below one directory, and never touches anything outside it."""

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from service.store.holds import lock_alone, open_to_lock

DAY_SECONDS = 86_400
MAX_DEPTH = 16
# Entries of a directory in memory at once: a directory may have millions, and removing while it is read entry by entry
# makes network file systems read it again from the start.
BATCH_ENTRIES = 10_000
# Errors that are named; the others are counted.
MAX_ERRORS = 20
_KEPT = ".gitkeep"


@dataclass(slots=True)
class Sweep:
    """What a sweep did, or with `dry_run` would do: `seen` counts all files, `failed` those that gave an error."""

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
) -> Sweep:
    """Remove the files below `root` that are older than `days`; raises ValueError unless days > 0.

    The walk goes by directory descriptors and follows no link, so a folder swapped for a link while it runs
    leads nowhere. Files that a running request holds (a shared lock) stay, whichever process holds them.
    `stopped` is asked before every entry and ends the walk early.
    """
    if not days > 0:
        raise ValueError(f"days must be more than 0, not {days}")
    done = Sweep()
    cutoff = (time.time() if now is None else now) - days * DAY_SECONDS
    try:
        with _opened(root) as descriptor:
            _Walk(cutoff, dry_run, stopped, done).folder(descriptor, MAX_DEPTH)
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
        if _age_mark(seen) <= self.cutoff:
            self._remove(name, directory, seen)

    def _remove(self, name: str, directory: int, seen: os.stat_result) -> None:
        """Remove a file unless somebody holds it, or it is another one by now."""
        descriptor = open_to_lock(name, directory)
        try:
            if not lock_alone(descriptor):
                self.done.in_use += 1
                return
            opened = os.fstat(descriptor)
            if (opened.st_ino, opened.st_mtime_ns) != (seen.st_ino, seen.st_mtime_ns):
                return
            if not self.dry_run:
                os.unlink(name, dir_fd=directory)
            self.done.files += 1
            self.done.bytes += opened.st_size
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _opened(directory: Path | str, parent: int | None = None) -> Iterator[int]:
    """A directory's descriptor; below a parent, a link is none."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if parent is None else os.O_NOFOLLOW)
    descriptor = os.open(directory, flags, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _age_mark(seen: os.stat_result) -> float:
    """When a file was last written; one that claims to be from the future ages from its last change of inode."""
    return seen.st_mtime if seen.st_mtime <= time.time() else seen.st_ctime
