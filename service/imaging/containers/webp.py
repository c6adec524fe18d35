"""WebP: the chunks of its RIFF container."""

import struct
from collections.abc import Iterator
from typing import BinaryIO

from service.imaging.containers.container import BROKEN_PROFILE, MAX_PROFILE_BYTES, Container, bounded
from service.imaging.containers.exif import orientation_of
from service.imaging.errors import Undecodable
from service.imaging.frame import Size
from service.imaging.provenance import mark_of

# Flags of the VP8X chunk; libwebp ignores chunks that it does not announce.
_ANIMATION, _EXIF, _PROFILE = 0x02, 0x08, 0x20


def read_webp(data: bytes) -> Container:
    flags = data[20] if data[12:16] == b"VP8X" else 0
    first: dict[bytes, memoryview] = {}
    frames = 0
    for kind, body in bounded(_riff_chunks(data)):
        first.setdefault(kind, body)
        frames += kind == b"ANMF"
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
        frames=max(1, frames) if flags & _ANIMATION else 1,
        # Readers of XMP do not look at the flags, and none announces C2PA.
        mark=mark_of(first.get(b"XMP ", b"")),
        c2pa=b"C2PA" in first,
    )


def _whole_profile(body: memoryview) -> bytes:
    return bytes(body) if len(body) <= MAX_PROFILE_BYTES else BROKEN_PROFILE


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
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
