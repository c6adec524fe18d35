"""The chunks of a WebP."""

import struct
from collections.abc import Iterator

from service.imaging.containers.container import BROKEN_PROFILE, MAX_PROFILE_BYTES, Container, bounded
from service.imaging.containers.exif import orientation_of
from service.imaging.errors import Undecodable
from service.imaging.plan import Size

# What the first chunk of an extended file announces; libwebp passes over what is not announced.
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
    return Container(
        "webp",
        _size(data),
        data,
        orientation=orientation_of(bytes(exif or b"")),
        profile=None if profile is None else _whole_profile(profile),
        frames=max(1, frames) if flags & _ANIMATION else 1,
    )


def _whole_profile(body: memoryview) -> bytes:
    return bytes(body) if len(body) <= MAX_PROFILE_BYTES else BROKEN_PROFILE


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Type and content of each chunk, as far as the file says that it goes."""
    view = memoryview(data)[: 8 + int.from_bytes(data[4:8], "little")]
    position = 12
    while position + 8 <= len(view):
        kind, length = struct.unpack_from("<4sI", view, position)
        yield kind, view[position + 8 : position + 8 + length]
        position += 8 + length + length % 2


def _size(data: bytes) -> Size:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise Undecodable("the WebP picture does not begin with its header")
