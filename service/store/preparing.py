"""Prepares the areas at start: creates them if need be, and tests everything that the store needs."""

import os
from itertools import permutations
from pathlib import Path

from service.errors import SettingsError
from service.store.directories import Directories
from service.store.holds import prove_locks
from service.store.layout import Area, Layout


def prepare(layout: Layout, directories: Directories, mode: int) -> None:
    """Create missing areas, with `mode`, and test that all can be used; raises SettingsError."""
    for area in layout.roots:
        _prepare(area, layout, directories, mode)
    resolved = {area: root.resolve() for area, root in layout.roots.items()}
    _require_apart(resolved)
    _require_one_file_system(resolved)


def _prepare(area: Area, layout: Layout, directories: Directories, mode: int) -> None:
    root = layout.roots[area]
    name = f"{area.upper()}_DIR={str(root)!r} (below STORAGE_DIR unless set)"
    try:
        make_directory(root, mode)
        directories[area].probe()
    except OSError as error:
        raise SettingsError(f"{name} cannot be written: {error.strerror}") from None
    try:
        prove_locks(directories[area])
    except OSError as error:
        raise SettingsError(f"{name} cannot be used: files there cannot be locked (flock): {error.strerror}") from None


def make_directory(path: Path, mode: int) -> None:
    """Create a directory and its missing parents with exactly this mode, whatever the umask; others keep theirs."""
    if path.is_dir():
        return
    make_directory(path.parent, mode)
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        # Another process created it first, unless it is a file.
        if not path.is_dir():
            raise
    else:
        path.chmod(mode)


def _require_apart(roots: dict[Area, Path]) -> None:
    for (area, root), (other, parent) in permutations(roots.items(), 2):
        if root.is_relative_to(parent):
            raise SettingsError(f"{area.upper()}_DIR={str(root)!r} lies in {other.upper()}_DIR: each needs its own")


def _require_one_file_system(roots: dict[Area, Path]) -> None:
    areas: tuple[Area, ...] = ("output", "generated")
    for other in areas:
        if roots["temp"].stat().st_dev != roots[other].stat().st_dev:
            raise SettingsError(
                f"TEMP_DIR={str(roots['temp'])!r} must be on the same file system as {other.upper()}_DIR:"
                " files move there by rename"
            )
