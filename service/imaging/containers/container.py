"""The result of parsing a picture's headers, and the limits on what is parsed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from service.imaging.errors import TooCostly
from service.imaging.frame import Size
from service.imaging.provenance import Mark

if TYPE_CHECKING:
    from service.imaging.containers.animation import Animation, Cel
    from service.imaging.formats import Format

MAX_PROFILE_BYTES = 4 * 1024 * 1024
# Chunks or segments of one file: each costs time, however small it is. Real files have hundreds.
MAX_PARTS = 65_536

# Stands for an ICC profile that cannot be read.
BROKEN_PROFILE = b""

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class Container:
    """A picture file before it is decoded.

    size           as stored, in pixels, before `orientation` is applied
    data           the file without the chunks or segments that its decoder does not need
    endings        each is a way to complete `data`; if there are several, all must decode to the same pixels
    orientation    1 to 8, as in Exif
    profile        the ICC profile of its colours; None: sRGB
    profile_fault  why the colours are not those that the file declares, if they are not
    frames         of an animation; 1 for a still picture
    depth          bits per sample
    colour         the colour type of a PNG
    transparent    the grey level or RGB colour that a PNG declares transparent, in samples of `depth` bits
    mark           the mark in its XMP packet
    animation      its frames, if there are several; or the one that is not what `decode` gives
    first          the image that is decoded, if it may be of another size than the picture
    largest        the size of the largest image, if it may be of another size than the picture
    palette        256 colours as RGBA, if `data` is decoded to indices
    c2pa           it carries a C2PA manifest, which is not validated
    """

    format: "Format"
    size: Size
    data: bytes
    endings: tuple[bytes, ...] = (b"",)
    orientation: int = 1
    profile: bytes | None = None
    profile_fault: str | None = None
    frames: int = 1
    depth: int = 8
    colour: int | None = None
    transparent: tuple[int, ...] | None = None
    mark: Mark | None = None
    c2pa: bool = False
    animation: "Animation | None" = None
    first: "Cel | None" = None
    largest: Size | None = None
    palette: bytes | None = None

    @property
    def upright_size(self) -> Size:
        width, height = self.size
        return (height, width) if self.orientation >= 5 else (width, height)


def bounded(parts: Iterator[_Part]) -> Iterator[_Part]:
    """The same parts; raises TooCostly after MAX_PARTS."""
    for number, part in enumerate(parts):
        if number >= MAX_PARTS:
            raise TooCostly(f"the file is in more than {MAX_PARTS:,} parts")
        yield part
