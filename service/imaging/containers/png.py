"""The chunks of a PNG."""

import struct
import zlib
from collections.abc import Iterator

from zlib_ng.zlib_ng import crc32

from service.imaging.containers.container import BROKEN_PROFILE, MAX_PROFILE_BYTES, Container, bounded
from service.imaging.containers.exif import orientation_of
from service.imaging.errors import Undecodable

# Colour types.
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6

# Written anew: where this one is cut, every pixel is there all the same.
END = b"\0\0\0\0IEND\xaeB`\x82"


def read_png(data: bytes) -> Container:
    chunks = bounded(png_chunks(data))
    kind, chunk = next(chunks, (b"", memoryview(b"")))
    if kind != b"IHDR" or len(chunk) != 12 + 13:
        raise Undecodable("the PNG picture does not begin with its header")
    width, height, depth, colour = struct.unpack_from(">IIBB", chunk, 8)
    kept: list[bytes | memoryview] = [data[:8], chunk]
    orientation, profile, transparent = 1, None, None
    pixels_began = False
    for kind, chunk in chunks:
        body = chunk[8:-4]
        if kind == b"IDAT":
            pixels_began = True
            kept.append(chunk)
        elif kind == b"IEND":
            kept.append(END)
        elif kind == b"eXIf":
            orientation = orientation_of(bytes(body))
        elif pixels_began:
            continue
        elif kind == b"iCCP":
            profile = _inflated_profile(bytes(body)) if _is_sound(chunk) else BROKEN_PROFILE
        elif colour == PALETTE and (kind == b"PLTE" or (kind == b"tRNS" and len(body) <= 256 and _is_sound(chunk))):
            kept.append(chunk)
        elif kind == b"tRNS" and len(body) == {GREY: 2, RGB: 6}.get(colour) and _is_sound(chunk):
            transparent = struct.unpack(f">{len(body) // 2}H", body)
    return Container("png", (width, height), b"".join(kept), orientation, profile, depth, colour, transparent)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Type and whole of each chunk up to the end of the picture, the last one as far as the file goes."""
    view = memoryview(data)
    position = 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", view, position)
        yield kind, view[position : position + 12 + length]
        if kind == b"IEND":
            return
        position += 12 + length


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", crc32(body, crc32(kind)))


def _is_sound(chunk: memoryview) -> bool:
    return crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])


def _inflated_profile(chunk: bytes) -> bytes:
    _name, _, rest = chunk.partition(b"\0")
    inflate = zlib.decompressobj()
    try:
        profile = inflate.decompress(rest[1:], MAX_PROFILE_BYTES)
    except zlib.error:
        return BROKEN_PROFILE
    return profile if inflate.eof else BROKEN_PROFILE
