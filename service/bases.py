"""Pictures on this machine, and the base: checked once for all the exports of an order, which share it."""

import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from stat import S_ISREG

from service.errors import UnsupportedImage
from service.imaging.formats import SNIFF_BYTES, TABLE, Format, JpegEncoding, sniff
from service.imaging.frame import Frame, Size
from service.imaging.plan import ExportPlan, Pixels

# Gemini takes these formats, and about 7 MB a picture (the documented limit). Any other picture is sent as a JPEG whose
# longer side is at most REFERENCE_LONGEST: below the limit even if it is all noise.
REFERENCE_FORMATS: tuple[Format, ...] = ("png", "jpeg", "webp")
MAX_REFERENCE_BYTES = 7_000_000
REFERENCE_LONGEST = 2400
REFERENCE_ENCODING = JpegEncoding(quality=90)
REFERENCE_PLAN = ExportPlan(Frame(longest=REFERENCE_LONGEST))
# What is reserved on the disk for each variation has this much to spare; more pixels are made anew for each export.
PREPARED_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """A picture on this machine: its path, the sha256 of its bytes, how many they are, and the format they begin as."""

    path: str
    sha256: str
    size: int
    format: Format | None

    @property
    def reference_mime(self) -> str | None:
        """Its MIME type if Gemini takes the file as it is."""
        if self.format in REFERENCE_FORMATS and self.size <= MAX_REFERENCE_BYTES:
            return TABLE[self.format].mime
        return None


def source_of(path: str) -> Source:
    """A regular file as it stands; raises OSError, UnsupportedImage. It hashes the file: not for the event loop."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    info = os.fstat(descriptor)
    if not S_ISREG(info.st_mode):
        os.close(descriptor)
        raise UnsupportedImage("not a regular file")
    with open(descriptor, "rb") as file:
        kind = sniff(os.pread(descriptor, SNIFF_BYTES, 0))
        return Source(path, hashlib.file_digest(file, "sha256").hexdigest(), info.st_size, kind)


@dataclass(slots=True, eq=False)
class Base:
    """A base for one or more exports.

    `prepared` are its pixels for exports of that size; `reference` is the path of a JPEG of it to send along.
    Where it cannot be used, an export is refused if the base is `required`, else made without it. `fault` says why
    exports go without it from then on.
    """

    source: Source
    prepared: Pixels | None = None
    reference: str | None = None
    required: bool = False
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Needs:
    """What an order needs of its base: to be blended under exports of `size` by `plan`, and to be sent to Gemini."""

    plan: ExportPlan
    size: Size | None
    variations: int
    reference: bool

    def prepared(self) -> Size | None:
        """The size at which its pixels are worth keeping."""
        fits = self.size and 3 * self.size[0] * self.size[1] <= PREPARED_BYTES * self.variations
        return self.size if fits else None

    def jpeg(self, source: Source) -> bool:
        """Whether a JPEG of it is sent in its place."""
        return self.reference and source.reference_mime is None


class SharedBase:
    """A base that was checked, and the files that came of it: they go when the last of its users leaves."""

    def __init__(self, base: Base, files: AsyncExitStack) -> None:
        self.base = base
        self._files = files
        self._users = 0

    @contextlib.asynccontextmanager
    async def used(self) -> AsyncIterator[Base]:
        self._users += 1
        try:
            yield self.base
        finally:
            self._users -= 1
            if not self._users:
                await self._files.aclose()
