"""An encoder of animated AVIF: a sequence of pictures, in which each is predicted from those before it."""

import struct
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from PIL import Image

# Boxes that have others, and those that have the times of creation and modification; ISO/IEC 14496-12.
_PARENTS = (b"moov", b"trak", b"mdia")
_DATED = (b"mvhd", b"tkhd", b"mdhd")


def encode_avif(frames: Sequence[Image.Image], durations: Sequence[int], options: Mapping[str, Any]) -> bytes:
    """Encode RGB or RGBA frames of one size as an AVIF image sequence that loops for ever; the options are Pillow's.

    AVIF has no duration of 0: such a frame is shown for 1 ms. The colours have limited range, unlike those of a still:
    Chromium 156 decodes every sequence as limited range, so that full range would look too bright and too dark.
    """
    mode = max(frame.mode for frame in frames)  # "RGB" < "RGBA"
    first, *others = (frame if frame.mode == mode else frame.convert(mode) for frame in frames)
    file = BytesIO()
    first.save(
        file, "AVIF", save_all=True, append_images=others, duration=tuple(durations), **{**options, "range": "limited"}
    )
    with file.getbuffer() as view:
        _clear_dates(view)
    return file.getvalue()


def _clear_dates(boxes: memoryview) -> None:
    """Set the times of creation and modification to zero, so that equal frames make equal bytes at any time."""
    position = 0
    while position < len(boxes):
        length, kind = struct.unpack_from(">I4s", boxes, position)
        body = boxes[position + 8 : position + length]
        if kind in _PARENTS:
            _clear_dates(body)
        elif kind in _DATED:
            dates = 16 if body[0] else 8  # of 64 or 32 bits, by the version
            body[4 : 4 + dates] = bytes(dates)
        position += max(length, 8)
