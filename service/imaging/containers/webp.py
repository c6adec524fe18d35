"""WebP: the chunks of its RIFF container."""

import struct
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from service.imaging.containers.animation import Animation, Cel, Disposal
from service.imaging.containers.container import BROKEN_PROFILE, MAX_PROFILE_BYTES, Container, bounded
from service.imaging.containers.exif import orientation_of
from service.imaging.errors import Undecodable
from service.imaging.frame import Size
from service.imaging.provenance import mark_of
from service.imaging.timing import Timing

# Flags of the VP8X chunk; libwebp ignores chunks that it does not announce.
_ANIMATION, _EXIF, _ALPHA, _PROFILE = 0x02, 0x08, 0x10, 0x20
# Flags of a frame.
_CLEARS, _REPLACES = 0x01, 0x02
_FRAME_HEADER = 16


def read_webp(data: bytes) -> Container:
    flags = data[20] if data[12:16] == b"VP8X" else 0
    first: dict[bytes, memoryview] = {}
    frames: list[memoryview] = []
    for kind, body in bounded(riff_chunks(data)):
        first.setdefault(kind, body)
        if kind == b"ANMF" and flags & _ANIMATION:
            frames.append(body)
    profile = first.get(b"ICCP") if flags & _PROFILE else None
    exif = first.get(b"EXIF") if flags & _EXIF else None
    size = _size(data)
    if size is None:
        raise Undecodable("the WebP picture does not begin with its header")
    return Container(
        "webp",
        size,
        data,
        orientation=orientation_of(bytes(exif or b"")),
        profile=None if profile is None else _whole_profile(profile),
        frames=max(1, len(frames)),
        # Readers of XMP do not look at the flags, and none announces C2PA.
        mark=mark_of(first.get(b"XMP ", b"")),
        c2pa=b"C2PA" in first,
        animation=_animation(size, frames, first.get(b"ANIM")) if len(frames) > 1 else None,
    )


def _animation(canvas: Size, frames: list[memoryview], header: memoryview | None) -> Animation:
    cels = [_cel(frame) for frame in frames]
    durations = tuple(int.from_bytes(frame[12:15], "little") for frame in frames)
    plays, fault = 0, None
    if header is None:
        fault = "the animated WebP has no animation header"
    else:
        plays = int.from_bytes(header[4:6], "little")
    if not all(cel.within(canvas) for cel in cels):
        fault = "a frame of the animated WebP leaves its canvas"
    return Animation(canvas, cels, Timing(durations, plays), fault)


def _cel(frame: memoryview) -> Cel:
    left, top, width, height = (int.from_bytes(frame[at : at + 3], "little") for at in range(0, 12, 3))
    flags = frame[_FRAME_HEADER - 1]
    size = width + 1, height + 1
    disposal: Disposal = "background" if flags & _CLEARS else "keep"
    return Cel(partial(_still, size, frame), 2 * left, 2 * top, *size, disposal, blends=not flags & _REPLACES)


def _still(size: Size, frame: memoryview) -> Container:
    """A WebP of one frame."""
    pixels = frame[_FRAME_HEADER:]
    head = b""
    if bytes(pixels[:4]) == b"ALPH":
        sides = b"".join((side - 1).to_bytes(3, "little") for side in size)
        head = struct.pack("<4sIB3x6s", b"VP8X", 10, _ALPHA, sides)
    length = len(b"WEBP") + len(head) + len(pixels)
    return Container("webp", size, b"".join((struct.pack("<4sI4s", b"RIFF", length, b"WEBP"), head, pixels)))


def _whole_profile(body: memoryview) -> bytes:
    return bytes(body) if len(body) <= MAX_PROFILE_BYTES else BROKEN_PROFILE


def riff_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Type and content of each chunk, up to the length in the RIFF header."""
    view = memoryview(data)[: 8 + int.from_bytes(data[4:8], "little")]
    position = 12
    while position + 8 <= len(view):
        kind, length = struct.unpack_from("<4sI", view, position)
        yield kind, view[position + 8 : position + 8 + length]
        position += 8 + length + length % 2


def webp_size(file: BinaryIO) -> Size | None:
    return _size(file.read(30))


def _size(head: bytes) -> Size | None:
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
