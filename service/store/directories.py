"""The areas as open directories: a rename or an fsync goes by a kept descriptor and opens nothing."""

import contextlib
import os
import secrets
import weakref
from pathlib import Path

from service.store.layout import Area, Layout


def probe_name() -> str:
    """Of a file that shows what a directory can do."""
    return f".probe-{secrets.token_hex(8)}"


class Directory:
    """An open directory; closed when nobody uses it any more, never under somebody who does."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.descriptor)

    def is_at(self, path: Path) -> bool:
        """Whether `path` leads to this very directory; raises OSError when it leads nowhere."""
        there = os.stat(path)
        try:
            return os.path.samestat(there, os.fstat(self.descriptor))
        except OSError:  # ESTALE: a network file system has forgotten it
            return False

    def open(self, name: str, flags: int) -> int:
        """A descriptor of a file in it; a link is followed nowhere."""
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self.descriptor)

    def create(self, name: str, mode: int = 0o600) -> int:
        """A descriptor of a new file, for reading and writing: Linux NFS locks no other in either way."""
        descriptor = self.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        # The umask may have taken bits away. Some network file systems have no modes.
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, mode)
        return descriptor

    def rename(self, name: str, target: "Directory", new: str) -> None:
        os.rename(name, new, src_dir_fd=self.descriptor, dst_dir_fd=target.descriptor)

    def unlink(self, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)

    def probe(self) -> None:
        """Make and remove a file: permission bits alone say nothing of a read-only or vanished file system."""
        name = probe_name()
        os.close(self.create(name))
        self.unlink(name)

    def sync(self) -> None:
        """Make the names in it durable."""
        os.fsync(self.descriptor)


class Directories:
    """The four areas, opened at first use and again whenever another directory has taken the place of one."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._open: dict[Area, Directory] = {}

    def __getitem__(self, area: Area) -> Directory:
        """The directory where the area's path leads now; raises OSError when that is none."""
        path, kept = self._layout.roots[area], self._open.get(area)
        if kept is None or not kept.is_at(path):
            kept = self._open[area] = Directory(path)
        return kept

    def of(self, key: str) -> tuple[Directory, str]:
        """The directory and file name of a key; raises ValueError for anything that is not a key, and OSError."""
        area, name = self._layout.split(key)
        return self[area], name
