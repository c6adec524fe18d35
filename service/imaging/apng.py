"""An encoder of animated PNG: each frame is the rectangle that it changes.

The chunks are those of https://www.w3.org/TR/png-3/#apng-frame-based-animation.
"""

import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from io import SEEK_SET, BytesIO
from itertools import count

from PIL import Image

from service.imaging.changes import FIRST_PIXEL, changed_box, common_mode, distinct, in_mode
from service.imaging.containers.png import END, png_chunk
from service.imaging.formats import PngEncoding
from service.imaging.frame import Box
from service.imaging.indexed import Palette, exact_palette
from service.imaging.png import PLAIN, Form, compressed, effort_of, indexed_form, metadata_chunks, preamble
from service.imaging.timing import Timing

MAX_PART = 0xFFFF  # of a delay, which is a fraction of a second
MAX_PLAYS = 0x7FFFFFFF

_DISPOSE_NONE, _BLEND_SOURCE = 0, 0


def encode_apng(frames: Sequence[Image.Image], timing: Timing, encoding: PngEncoding, xmp: bytes = b"") -> bytes:
    """RGB or RGBA frames of one size as an animated PNG, lossless; equal successive frames become one.

    An indexed one if the encoding allows a palette, and all frames together have at most 256 colours.
    """
    effort = effort_of(encoding.compression, thorough=encoding.thorough)
    mode = common_mode(frames)
    palette = exact_palette(in_mode(frames, mode)) if encoding.palette else None
    file = BytesIO()
    control = images = 0
    numbers = count()
    before: Image.Image | None = None
    for frame, duration in distinct(in_mode(frames, mode), timing.durations):
        if before is None:
            file.write(preamble(_form(frame, palette), metadata_chunks(xmp)))
            control = file.tell()
            file.write(_animation_control(0, 0))
        box = (before and changed_box(before, frame)) or (0, 0, *frame.size)
        for delay in _delays(duration):
            stream = compressed(_form(frame.crop(box), palette), effort)
            file.write(_frame_control(next(numbers), box, delay))
            file.write(
                png_chunk(b"fdAT", struct.pack(">I", next(numbers)) + stream) if images else png_chunk(b"IDAT", stream)
            )
            box, images = FIRST_PIXEL, images + 1
        before = frame
    file.write(END)
    file.seek(control, SEEK_SET)
    file.write(_animation_control(images, timing.plays))
    return file.getvalue()


def _form(image: Image.Image, palette: Palette | None) -> Form:
    return indexed_form(image, palette) if palette else Form(image, image.mode, *PLAIN[image.mode])


def _delays(duration: int) -> Iterator[Fraction]:
    """A duration in ms as a fraction of a second, or if the format cannot hold it, several.

    The frames after the first draw one pixel again.
    """
    rest = Fraction(duration, 1000)
    while rest.numerator > MAX_PART:
        whole = Fraction(min(int(rest), MAX_PART))
        yield whole
        rest -= whole
    yield rest


def _animation_control(frames: int, plays: int) -> bytes:
    return png_chunk(b"acTL", struct.pack(">2I", frames, min(plays, MAX_PLAYS)))


def _frame_control(number: int, box: Box, delay: Fraction) -> bytes:
    left, top, right, bottom = box
    place = struct.pack(">5I", number, right - left, bottom - top, left, top)
    times = struct.pack(">2H", delay.numerator, delay.denominator)
    return png_chunk(b"fcTL", place + times + bytes((_DISPOSE_NONE, _BLEND_SOURCE)))
