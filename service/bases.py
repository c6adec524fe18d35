"""Source pictures, and the base: a picture that is checked once for an order and composited under all its exports."""

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
# Raw pixels of the base, for each variation: within the disk space that is reserved for a variation. For larger exports
# they are not kept, and each export decodes the base.
PREPARED_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """A picture file: its path, the SHA-256 and number of its bytes, and its format by its magic bytes."""

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
    """Describe a regular file; raises OSError, UnsupportedImage. It hashes the file, so call it in a thread."""
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

    prepared   its pixels, ready for exports of one size
    reference  the path of a JPEG of it, to send to Gemini in place of the file
    required   an export is refused if the base cannot be used; else it is made without it
    fault      why no further export uses the base
    """

    source: Source
    prepared: Pixels | None = None
    reference: str | None = None
    required: bool = False
    fault: str | None = None


def lost_base(path: str = "") -> Base:
    """A base whose file cannot be opened: exports are made without it, with a warning."""
    return Base(Source(path, "", 0, None), fault="the base picture cannot be opened")


@dataclass(frozen=True, slots=True)
class Needs:
    """The uses of a base in an order: it is composited under exports of `size` by `plan`, and sent to Gemini."""

    plan: ExportPlan
    size: Size | None
    variations: int
    reference: bool

    def prepared_size(self) -> Size | None:
        """The size in which the base's pixels are kept for the exports; None if they would take too much space."""
        fits = self.size and 3 * self.size[0] * self.size[1] <= PREPARED_BYTES * self.variations
        return self.size if fits else None

    def needs_jpeg(self, source: Source) -> bool:
        """Whether a JPEG of the base is sent to Gemini in place of its file."""
        return self.reference and source.reference_mime is None


class SharedBase:
    """A checked base with reference counting: its temporary files are removed when the last user is done."""

    def __init__(self, base: Base, files: AsyncExitStack) -> None:
        self.base = base
        self._files = files
        self._users = 0

    @contextlib.asynccontextmanager
    async def used(self) -> AsyncIterator[Base]:
        self.take()
        try:
            yield self.base
        finally:
            await self.leave()

    def take(self) -> None:
        """Be one more user, until `leave`."""
        self._users += 1

    async def leave(self) -> None:
        self._users -= 1
        if not self._users:
            await self._files.aclose()
