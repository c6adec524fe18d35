"""What a picture's file says before it is decoded, and the file without what its decoder does not need."""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from zlib_ng.zlib_ng import crc32

from service.imaging.errors import TooCostly, TooManyPixels, Undecodable, UnsupportedType
from service.imaging.formats import Format, sniff
from service.imaging.plan import Size

MAX_PROFILE_BYTES = 4 * 1024 * 1024
# Each scan of a progressive JPEG passes over the whole picture; real encoders write about ten.
MAX_SCANS = 100

# Walking through a file costs time for each of its chunks or segments, however small; real files have hundreds.
MAX_PARTS = 65_536

BROKEN_PROFILE = b""

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class Container:
    """A file that was looked into: `data` is what the decoder gets, `size` is as stored, before `orientation`.

    `profile` is the embedded ICC profile, None without one, BROKEN_PROFILE if it cannot be read.
    `depth` and `colour` are a PNG's bits per sample and colour type.
    `transparent` is the grey level or RGB colour that a PNG declares transparent, in such samples.
    """

    format: Format
    size: Size
    data: bytes
    orientation: int = 1
    profile: bytes | None = None
    depth: int = 8
    colour: int | None = None
    transparent: tuple[int, ...] | None = None

    @property
    def upright_size(self) -> Size:
        width, height = self.size
        return (height, width) if self.orientation >= 5 else (width, height)


def look_into(data: bytes, max_pixels: int) -> Container:
    """Read a file's headers; raises UnsupportedType, Undecodable, TooManyPixels or TooCostly."""
    name = sniff(data)
    if name is None:
        raise UnsupportedType("the file is not a PNG, JPEG or WebP picture")
    try:
        container = _READERS[name](data)
    except (struct.error, IndexError):
        raise Undecodable(f"the {name.upper()} picture is cut within its header") from None
    width, height = container.size
    if width < 1 or height < 1:
        raise Undecodable(f"the {name.upper()} picture has no size")
    if width * height > max_pixels:
        raise TooManyPixels(
            f"the picture is {width} x {height}, {width * height:,} pixels; at most {max_pixels:,} are allowed"
        )
    return container


def _bounded(parts: Iterator[_Part]) -> Iterator[_Part]:
    for number, part in enumerate(parts):
        if number >= MAX_PARTS:
            raise TooCostly(f"the file is in more than {MAX_PARTS:,} parts")
        yield part


# -- PNG ---------------------------------------------------------------------------------------------------------------


# Colour types.
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6

# Written anew: where this one is cut, every pixel is there all the same.
END = b"\0\0\0\0IEND\xaeB`\x82"


def _png(data: bytes) -> Container:
    chunks = _bounded(png_chunks(data))
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
            orientation = _orientation(bytes(body))
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


# -- JPEG --------------------------------------------------------------------------------------------------------------

# Within a scan 0xFF is followed by a stuffed zero or a restart marker; any other byte begins a segment.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_BARE = (0x01, _SOI, _EOI)
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_APP = range(0xE0, 0xF0)


def _jpeg(data: bytes) -> Container:
    kept: list[bytes | memoryview] = [data[:2]]
    size, orientation, scans = (0, 0), 1, 0
    pieces: dict[int, bytes] = {}
    announced = 0
    for before, marker, segment in _bounded(_jpeg_segments(data)):
        if scans:
            kept.append(before)
        body = bytes(segment[4:]) if marker in _APP else b""
        if body.startswith(b"Exif\0\0"):
            orientation = _orientation(body[6:])
        elif body.startswith(b"ICC_PROFILE\0") and len(body) >= 14:
            pieces[body[12]], announced = body[14:], body[13]
        elif marker in _SOF:
            height, width = struct.unpack_from(">HH", segment, 5)
            size = (width, height)
        elif marker == _SOS:
            scans += 1
        # The first of these tells the colours apart, and no other application segment says how to decode.
        if (marker not in _APP and marker != _COM) or (body.startswith((b"Adobe", b"JFIF\0")) and len(body) >= 12):
            kept.append(segment)
    if scans > MAX_SCANS:
        raise TooCostly(f"the JPEG picture has {scans} scans; at most {MAX_SCANS} are allowed")
    profile = _joined_profile(pieces, announced) if pieces else None
    return Container("jpeg", size, b"".join(kept), orientation, profile)


def _jpeg_segments(data: bytes) -> Iterator[tuple[memoryview, int, memoryview]]:
    """Up to the first end of picture: the scan or filler before each marker, the marker, its whole segment."""
    view = memoryview(data)
    position = 2
    while found := _MARKER.search(data, position):
        start, marker = found.start(), data[found.end() - 1]
        before = view[position:start]
        if marker in _BARE:
            position = start + 2
        else:
            (length,) = struct.unpack_from(">H", view, start + 2)
            position = start + 2 + length
        yield before, marker, view[start:position]
        if marker == _EOI:
            return
    yield view[position:], _EOI, view[:0]


def _joined_profile(pieces: dict[int, bytes], announced: int) -> bytes:
    if sorted(pieces) != list(range(1, announced + 1)):
        return BROKEN_PROFILE
    profile = b"".join(pieces[number] for number in sorted(pieces))
    return profile if len(profile) <= MAX_PROFILE_BYTES else BROKEN_PROFILE


# -- WebP --------------------------------------------------------------------------------------------------------------


def _webp(data: bytes) -> Container:
    orientation, profile = 1, None
    for kind, body in _bounded(_riff_chunks(data)):
        if kind == b"EXIF":
            orientation = _orientation(bytes(body).removeprefix(b"Exif\0\0"))
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


# -- EXIF --------------------------------------------------------------------------------------------------------------


def _orientation(tiff: bytes) -> int:
    """The orientation, 1 to 8, that an EXIF block asks for; 1 when it cannot be read."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, _values, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if (tag, kind) == (0x0112, 3):
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


_READERS = {"png": _png, "jpeg": _jpeg, "webp": _webp}
