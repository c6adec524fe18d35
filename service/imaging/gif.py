"""A GIF encoder: stills and animations, each frame no larger than what it changes.

The format is that of https://www.w3.org/Graphics/GIF/spec-gif89a.txt. Pillow only compresses the pixels: its own writer
keeps all frames in memory, and dithers anew what does not change.
"""

import struct
from collections.abc import Iterator, Sequence
from io import BytesIO

from PIL import Image

from service.imaging.changes import distinct
from service.imaging.frame import Box, Size
from service.imaging.gif_palettes import Indexed, Palettes
from service.imaging.patches import patches, sharp
from service.imaging.timing import Timing, quantized

MAX_DELAY = MAX_REPEATS = 0xFFFF  # delays are hundredths of a second

_KEEP, _CLEAR = 1, 2  # disposal: what becomes of an image's rectangle when it ends

# XMP is not stored in blocks: readers that skip blocks land in this run of lengths, each of which leads to its end.
_MAGIC_TRAILER = b"\x01" + bytes(range(255, -1, -1)) + b"\0"


def encode_gif(frames: Sequence[Image.Image], timing: Timing, xmp: bytes = b"") -> bytes:
    """RGB or RGBA frames of one size as a GIF; one frame: a still.

    A frame of at most 256 colours keeps every pixel exactly, others are dithered. Pixels of an alpha below OPAQUE_FROM
    are transparent, and take one of the colours; all others are opaque. Equal successive frames become one.
    """
    file = BytesIO()
    palettes = Palettes(animated=len(frames) > 1)
    shared = b""
    for patch, duration in patches(distinct(sharp(frames), quantized(timing.durations, 10))):
        image = palettes.indexed(patch)
        if not shared:
            shared = image.table
            file.write(_header(frames[0].size, image, timing.plays, xmp))
        for delay, clears in _parts(duration // 10, clears=patch.clears):
            file.write(_image(image, patch.box, delay, shared, clears=clears))
            image = _nothing(patch.image.size, shared)
    file.write(b";")
    return file.getvalue()


def _parts(delay: int, *, clears: bool) -> Iterator[tuple[int, bool]]:
    """A delay in parts that the format can hold; the last one clears."""
    while delay > MAX_DELAY:
        yield MAX_DELAY, False
        delay -= MAX_DELAY
    yield delay, clears


def _nothing(size: Size, table: bytes) -> Indexed:
    """A rectangle of which nothing is drawn."""
    return Indexed(Image.new("P", size), table, 0)


def _header(size: Size, image: Indexed, plays: int, xmp: bytes) -> bytes:
    """The logical screen, the global colour table, and extensions for repeats (none: played once) and XMP."""
    repeats = min(plays - 1, MAX_REPEATS) if plays else 0
    return b"".join(
        (
            b"GIF89a",
            struct.pack("<2H3B", *size, 0x80 | image.bits - 1, 0, 0),
            image.table,
            b"" if plays == 1 else b"!\xff\x0bNETSCAPE2.0\x03\x01%b\0" % struct.pack("<H", repeats),
            b"!\xff\x0bXMP DataXMP" + xmp + _MAGIC_TRAILER if xmp else b"",
        )
    )


def _image(image: Indexed, box: Box, delay: int, shared: bytes, *, clears: bool) -> bytes:
    """One image with its control extension, and with a colour table of its own if the shared one is another."""
    left, top, right, bottom = box
    flags = (_CLEAR if clears else _KEEP) << 2 | (image.transparent is not None)
    table = b"" if image.table == shared else image.table
    code_size = max(2, image.bits)
    return b"".join(
        (
            struct.pack("<4BH2B", ord("!"), 0xF9, 4, flags, delay, image.transparent or 0, 0),
            struct.pack(
                "<B4HB", ord(","), left, top, right - left, bottom - top, 0x80 | image.bits - 1 if table else 0
            ),
            table,
            bytes((code_size,)),
            image.image.tobytes("gif", ("P", code_size, 0)),
            b"\0",
        )
    )
