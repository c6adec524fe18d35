"""How long files are kept, and the sweep that removes older ones; nothing outside the rooms is ever touched."""

import contextlib
import logging
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from service.settings import Settings, load_settings
from service.store.holds import lock_alone, open_to_lock
from service.store.layout import Area

log = logging.getLogger(__name__)

DAY_SECONDS = 86_400
MAX_DEPTH = 16
_KEPT = ".gitkeep"


@dataclass(slots=True)
class Sweep:
    """What a sweep did, or with `dry_run` would do."""

    files: int = 0
    bytes: int = 0
    in_use: int = 0
    errors: list[str] = field(default_factory=list)


def sweep(root: Path, days: float, *, dry_run: bool = False, now: float | None = None) -> Sweep:
    """Remove the files below `root` that are older than `days`; raises ValueError unless days > 0.

    The walk goes by directory descriptors and follows no link, so a folder swapped for a link while it runs
    leads nowhere. Files that a running request holds (a shared lock) stay, whichever process holds them.
    """
    if not days > 0:
        raise ValueError(f"days must be more than 0, not {days}")
    done = Sweep()
    cutoff = (time.time() if now is None else now) - days * DAY_SECONDS
    try:
        with _opened(root) as descriptor:
            _walk(descriptor, cutoff, dry_run, done, MAX_DEPTH)
    except FileNotFoundError:
        pass
    except OSError as error:
        done.errors.append(f"{root.name}: {error.strerror}")
    return done


def _walk(directory: int, cutoff: float, dry_run: bool, done: Sweep, depth: int) -> None:
    with os.scandir(directory) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in names:
        try:
            if is_directory:
                if depth:
                    with _opened(name, directory) as child:
                        _walk(child, cutoff, dry_run, done, depth - 1)
            elif name != _KEPT:
                _remove_if_old(name, directory, cutoff, dry_run, done)
        except FileNotFoundError:
            continue
        except OSError as error:
            done.errors.append(f"{name}: {error.strerror}")


@contextlib.contextmanager
def _opened(directory: Path | str, parent: int | None = None) -> Iterator[int]:
    """A directory's descriptor; below a parent, a link is none."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if parent is None else os.O_NOFOLLOW)
    descriptor = os.open(directory, flags, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _remove_if_old(name: str, directory: int, cutoff: float, dry_run: bool, done: Sweep) -> None:
    seen = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISREG(seen.st_mode) or _age_mark(seen) > cutoff:
        return
    descriptor = open_to_lock(name, directory)
    try:
        if not lock_alone(descriptor):
            done.in_use += 1
            return
        opened = os.fstat(descriptor)
        if (opened.st_ino, opened.st_mtime_ns) != (seen.st_ino, seen.st_mtime_ns):
            return
        if not dry_run:
            os.unlink(name, dir_fd=directory)
        done.files += 1
        done.bytes += opened.st_size
    finally:
        os.close(descriptor)


def _age_mark(seen: os.stat_result) -> float:
    """When a file was last written; one that claims to be from the future ages from its last change of inode."""
    return seen.st_mtime if seen.st_mtime <= time.time() else seen.st_ctime


def sweep_area(settings: Settings, area: Area, days: float | None = None, *, dry_run: bool = False) -> Sweep:
    """Sweep one room by `days`, or by its setting, where 0 keeps for ever."""
    keep = settings.retention_days(area) if days is None else days
    if days is None and keep == 0:
        return Sweep()
    done = sweep(settings.area(area), keep, dry_run=dry_run)
    for error in done.errors:
        log.warning("sweep of %s could not remove %s", area, error)
    return done


def cleanup_old_files() -> dict[str, int]:
    """Sweep temp/ and output/ by their settings: one line for cron, `python -c` and scripts."""
    settings = load_settings()
    return {
        "temp_files_deleted": sweep_area(settings, "temp").files,
        "output_files_deleted": sweep_area(settings, "output").files,
    }
