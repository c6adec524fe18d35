"""An encoder of animated WebP: each frame is the rectangle that it changes, encoded like a still.

libwebp's own encoder of animations takes similar pixels for unchanged, so that errors add up in a slow fade unless it
encodes key frames again and again, and it tries each frame in several ways, for twice the time. The container is that
of https://www.rfc-editor.org/rfc/rfc9649.html.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO

from PIL import Image

from service.imaging.changes import FIRST_PIXEL, changed_box, common_mode, distinct, in_mode
from service.imaging.containers.webp import riff_chunks
from service.imaging.frame import Box, Size
from service.imaging.timing import Timing

MAX_DURATION = (1 << 24) - 1
MAX_PLAYS = 0xFFFF

_ANIMATION, _XMP, _ALPHA, _PROFILE = 0x02, 0x04, 0x10, 0x20
_REPLACES = 0x02
_PIXELS = (b"ALPH", b"VP8 ", b"VP8L")

# Encodes a still, without profile or metadata.
EncodeStill = Callable[[Image.Image], bytes]


def encode_webp(
    frames: Sequence[Image.Image], timing: Timing, still: EncodeStill, profile: bytes, xmp: bytes = b""
) -> bytes:
    """RGB or RGBA frames of one size as an animated WebP; equal successive frames become one."""
    mode = common_mode(frames)
    file = BytesIO()
    file.write(struct.pack("<4s4x4s", b"RIFF", b"WEBP"))
    file.write(_chunk(b"VP8X", _canvas(frames[0].size, profile, xmp, alpha=mode == "RGBA")))
    if profile:
        file.write(_chunk(b"ICCP", profile))
    file.write(_chunk(b"ANIM", struct.pack("<4xH", min(timing.plays, MAX_PLAYS))))
    before: Image.Image | None = None
    for frame, duration in distinct(in_mode(frames, mode), timing.durations):
        box = (before and changed_box(before, frame)) or (0, 0, *frame.size)
        for part in _parts(duration):
            file.write(_chunk(b"ANMF", _frame(frame, _even(box), part, still)))
            box = FIRST_PIXEL
        before = frame
    if xmp:
        file.write(_chunk(b"XMP ", xmp))
    length = file.tell()
    file.seek(4)
    file.write(struct.pack("<I", length - 8))
    return file.getvalue()


def _canvas(size: Size, profile: bytes, xmp: bytes, *, alpha: bool) -> bytes:
    flags = _ANIMATION | (_ALPHA if alpha else 0) | (_PROFILE if profile else 0) | (_XMP if xmp else 0)
    return struct.pack("<I", flags) + b"".join((side - 1).to_bytes(3, "little") for side in size)


def _parts(duration: int) -> Iterator[int]:
    """A duration in parts that the format can hold; the frames after the first draw some pixels again."""
    while duration > MAX_DURATION:
        yield MAX_DURATION
        duration -= MAX_DURATION
    yield duration


def _even(box: Box) -> Box:
    """The box with even offsets, as the format has them in pairs of pixels."""
    return box[0] & ~1, box[1] & ~1, box[2], box[3]


def _frame(frame: Image.Image, box: Box, duration: int, still: EncodeStill) -> bytes:
    left, top, right, bottom = box
    fields = (left // 2, top // 2, right - left - 1, bottom - top - 1, duration)
    header = b"".join(field.to_bytes(3, "little") for field in fields) + bytes((_REPLACES,))
    return header + b"".join(
        _chunk(kind, body) for kind, body in riff_chunks(still(frame.crop(box))) if kind in _PIXELS
    )


def _chunk(kind: bytes, body: bytes | memoryview) -> bytes:
    return b"".join((kind, struct.pack("<I", len(body)), body, bytes(len(body) % 2)))
