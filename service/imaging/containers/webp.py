"""The chunks of a WebP."""

import struct
from collections.abc import Iterator

from service.imaging.containers.container import BROKEN_PROFILE, MAX_PROFILE_BYTES, Container, bounded
from service.imaging.containers.exif import orientation_of
from service.imaging.errors import Undecodable
from service.imaging.plan import Size


def read_webp(data: bytes) -> Container:
    orientation, profile = 1, None
    for kind, body in bounded(_riff_chunks(data)):
        if kind == b"EXIF":
            orientation = orientation_of(bytes(body).removeprefix(b"Exif\0\0"))
        elif kind == b"ICCP":
            profile = bytes(body) if len(body) <= MAX_PROFILE_BYTES else BROKEN_PROFILE
    return Container("webp", _webp_size(data), data, orientation, profile)


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view = memoryview(data)
    position = 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", view, position)
        yield kind, view[position + 8 : position + 8 + length]
        position += 8 + length + length % 2


def _webp_size(data: bytes) -> Size:
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
