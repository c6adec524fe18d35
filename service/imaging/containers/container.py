"""What is known of a picture before it is decoded, and the bounds on what is read of its file."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from service.imaging.errors import TooCostly
from service.imaging.frame import Size

if TYPE_CHECKING:
    from service.imaging.formats import Format

MAX_PROFILE_BYTES = 4 * 1024 * 1024
# Walking through a file costs time for each of its chunks or segments, however small; real files have hundreds.
MAX_PARTS = 65_536

BROKEN_PROFILE = b""

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class Container:
    """A file that was looked into: `data` is what the decoder gets, `size` is as stored, before `orientation`.

    `endings` are what to append to `data` for decoding; if there are several, all must give the same pixels.
    `profile` is the ICC profile of its colours, None without one, BROKEN_PROFILE if it cannot be read.
    `profile_fault` says why colours that the file declares in another way are not converted.
    `frames` is how many pictures an animation has, 1 for a still.
    `depth` and `colour` are a PNG's bits per sample and colour type.
    `transparent` is the grey level or RGB colour that a PNG declares transparent, in such samples.
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

    @property
    def upright_size(self) -> Size:
        width, height = self.size
        return (height, width) if self.orientation >= 5 else (width, height)


def bounded(parts: Iterator[_Part]) -> Iterator[_Part]:
    for number, part in enumerate(parts):
        if number >= MAX_PARTS:
            raise TooCostly(f"the file is in more than {MAX_PARTS:,} parts")
        yield part
