"""Probe: read the headers of a picture of any format, and refuse it before its pixels are decoded."""

import math
import struct
from collections.abc import Iterable, Sequence
from typing import BinaryIO

from service.imaging.containers.animation import Cel
from service.imaging.containers.container import Container
from service.imaging.errors import TooManyPixels, Undecodable, UnsupportedType
from service.imaging.formats import READABLE, SNIFF_BYTES, TABLE, reader_of, sniff
from service.imaging.frame import Size


def probe(data: bytes, max_pixels: int) -> Container:
    """Parse a file's headers; raises UnsupportedType, Undecodable, TooManyPixels or TooCostly."""
    name = sniff(data[:SNIFF_BYTES])
    if name is None:
        raise UnsupportedType(f"the file is not a {READABLE} picture")
    row = TABLE[name]
    try:
        container = reader_of(name).read(data)
    except (struct.error, IndexError):
        raise Undecodable(f"the {row.label} picture is cut within its header") from None
    if not all(container.size):
        raise Undecodable(f"the {row.label} picture has no size")
    _refuse_too_many(container.size, max_pixels)
    if container.largest:
        _refuse_too_many(container.largest, max_pixels)
    return container


def _refuse_too_many(size: Size, most: int) -> None:
    width, height = size
    if width * height > most:
        pixels = f"{width} x {height}, {width * height:,} pixels"
        raise TooManyPixels(f"the picture is {pixels}; at most {most:,} are allowed")


def check_animation(cels: Sequence[Cel], sizes: Iterable[Size], max_frames: int, max_pixels: int) -> None:
    """Raise TooManyPixels for an animation of too many frames, or of too many pixels in one of its sizes.

    The cels themselves are decoded: those of a GIF may be larger than its canvas.
    """
    frames = len(cels)
    if frames > max_frames:
        raise TooManyPixels(f"the animation has {frames:,} frames; at most {max_frames:,} are allowed")
    for width, height in sizes:
        if (pixels := frames * width * height) > max_pixels:
            raise TooManyPixels(
                f"{frames:,} frames of {width} x {height} have {pixels:,} pixels; at most {max_pixels:,} are allowed"
            )
    if (pixels := sum(math.prod(cel.size) for cel in cels)) > max_pixels:
        raise TooManyPixels(
            f"the images of {frames:,} frames have {pixels:,} pixels; at most {max_pixels:,} are allowed"
        )


def stored_size(file: BinaryIO) -> Size | None:
    """The size that a picture's headers announce, before any Exif orientation; None where none is found.

    Only a few bytes are read, so unlike `probe` it takes no worker.
    """
    name = sniff(file.read(SNIFF_BYTES))
    if name is None:
        return None
    file.seek(0)
    try:
        size = reader_of(name).stored_size(file)
    except struct.error:
        return None
    return size if size and all(size) else None
