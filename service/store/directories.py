"""The areas as open directories: renaming a file or syncing its directory needs no new descriptor."""

import contextlib
import os
import secrets
import stat
import weakref
from pathlib import Path

from service.store.layout import Area, Layout


def probe_name() -> str:
    """The name of a file that is created only to test a directory."""
    return f".probe-{secrets.token_hex(8)}"


class Directory:
    """An open directory, closed when nothing refers to it any more."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.descriptor)

    def is_at(self, path: Path) -> bool:
        """Whether `path` is this directory; raises OSError if it cannot be looked up."""
        there = os.stat(path)
        try:
            return os.path.samestat(there, os.fstat(self.descriptor))
        except OSError:  # ESTALE: a network file system no longer knows it
            return False

    def open(self, name: str, flags: int) -> int:
        """Open a file in it by name, following no symbolic link; returns the descriptor."""
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self.descriptor)

    def create(self, name: str, mode: int = 0o600) -> int:
        """Create a file and return its descriptor, open for reading and writing: Linux NFS needs both for its locks."""
        descriptor = self.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        # Whatever the umask is. Some network file systems have no modes.
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, mode)
        return descriptor

    def rename(self, name: str, target: "Directory", new: str) -> None:
        os.rename(name, new, src_dir_fd=self.descriptor, dst_dir_fd=target.descriptor)

    def touch(self, name: str) -> None:
        """Set the times of a file to now, where the file system allows it."""
        with contextlib.suppress(OSError):
            os.utime(name, dir_fd=self.descriptor, follow_symlinks=False)

    def unlink(self, name: str) -> None:
        """Remove a file, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)

    def exists(self, name: str) -> bool:
        """Whether there is a regular file of this name; raises OSError if that cannot be determined."""
        try:
            return stat.S_ISREG(os.stat(name, dir_fd=self.descriptor, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return False

    def probe(self) -> None:
        """Create and remove a file: permission bits do not show a read-only or vanished file system."""
        name = probe_name()
        os.close(self.create(name))
        self.unlink(name)

    def sync(self) -> None:
        """fsync the directory, so that the names in it are durable."""
        os.fsync(self.descriptor)


class Directories:
    """The four areas, each opened at its first use, and again if its path leads to another directory."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._open: dict[Area, Directory] = {}

    def __getitem__(self, area: Area) -> Directory:
        """The directory that the area's path is now; raises OSError if there is none."""
        path, kept = self._layout.roots[area], self._open.get(area)
        if kept is None or not kept.is_at(path):
            kept = self._open[area] = Directory(path)
        return kept

    def of(self, key: str) -> tuple[Directory, str]:
        """The directory and file name of a key; raises ValueError for anything that is not a key, and OSError."""
        area, name = self._layout.split(key)
        return self[area], name
