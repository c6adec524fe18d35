"""What an export will cost, roughly, from what its files say at their begin."""

import os
import struct
from collections.abc import Iterable
from typing import BinaryIO

from service.imaging.errors import ImpossibleFrame
from service.imaging.formats import SNIFF_BYTES, sniff
from service.imaging.plan import ExportPlan, Size

# Of one core, for any picture, and for each pixel that is read, and written in three formats. Only the order of
# magnitude matters.
_SECONDS_AT_LEAST = 0.005
_SECONDS_A_PIXEL_READ = 2e-8
_SECONDS_A_PIXEL_WRITTEN = 1e-7

# A JPEG's size stands behind segments of any length: real files have some ten of them.
_SEGMENTS = 1_000
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def export_seconds(plan: ExportPlan, sizes: Iterable[Size]) -> float:
    """Seconds of a worker's CPU for a picture that is exported; `sizes` are its own and those of others to decode."""
    picture, *others = sizes
    try:
        width, height = plan.frame.size(picture)
    except ImpossibleFrame:
        return _SECONDS_AT_LEAST
    read = sum(width * height for width, height in (picture, *others))
    return _SECONDS_AT_LEAST + read * _SECONDS_A_PIXEL_READ + width * height * _SECONDS_A_PIXEL_WRITTEN


def stored_size(file: BinaryIO) -> Size | None:
    """The size, before any EXIF orientation, that a PNG, JPEG or WebP file announces; None where none is found."""
    try:
        size = _size(file)
    except struct.error:
        return None
    return size if size and all(size) else None


def _size(file: BinaryIO) -> Size | None:
    head = file.read(30)
    match sniff(head[:SNIFF_BYTES]):
        case "png":
            width, height = struct.unpack_from(">II", head, 16)
            return width, height
        case "webp":
            return _webp_size(head)
        case "jpeg":
            file.seek(2)
            return _jpeg_size(file)
    return None


def _webp_size(head: bytes) -> Size | None:
    match head[12:16]:
        case b"VP8X":
            return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", head, 26)
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", head, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def _jpeg_size(file: BinaryIO) -> Size | None:
    for _ in range(_SEGMENTS):
        fill, marker, length = struct.unpack(">BBH", file.read(4))
        if fill != 0xFF:
            return None
        if marker in _SOF:
            height, width = struct.unpack(">xHH", file.read(5))
            return width, height
        file.seek(length - 2, os.SEEK_CUR)
    return None
