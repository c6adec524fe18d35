"""What a picture's file says before it is decoded, and the file without what its decoder does not need."""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from service.imaging.errors import TooCostly, TooManyPixels, Undecodable, UnsupportedType
from service.imaging.formats import Format, sniff
from service.imaging.plan import Size

MAX_PROFILE_BYTES = 4 * 1024 * 1024
# Each scan of a progressive JPEG passes over the whole picture; real encoders write about ten.
MAX_SCANS = 100

BROKEN_PROFILE = b""


@dataclass(frozen=True, slots=True)
class Container:
    """A file that was looked into: `data` is what the decoder gets, `size` is as stored, before `orientation`.

    `profile` is the embedded ICC profile, None without one, BROKEN_PROFILE if it cannot be read.
    `transparent` is the grey level or RGB colour that a PNG declares transparent, in samples of `depth` bits.
    `inverted` tells a JPEG of which 0 means full ink, as Adobe writes CMYK.
    """

    format: Format
    size: Size
    data: bytes
    orientation: int = 1
    profile: bytes | None = None
    depth: int = 8
    transparent: tuple[int, ...] | None = None
    inverted: bool = False

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


# -- PNG ---------------------------------------------------------------------------------------------------------------


def _png(data: bytes) -> Container:
    chunks = _png_chunks(data)
    kind, header, _ = next(chunks, (b"", memoryview(b""), False))
    if kind != b"IHDR" or len(header) != 13:
        raise Undecodable("the PNG picture does not begin with its header")
    width, height, depth, colour = struct.unpack_from(">IIBB", header)
    kept = [_png_chunk(kind, header)]
    orientation, profile, transparent = 1, None, None
    pixels_began = False
    for kind, body, sound in chunks:
        if kind == b"IDAT":
            pixels_began = True
            kept.append(_png_chunk(kind, body, sound))
        elif kind == b"IEND":
            kept.append(_png_chunk(kind, b""))
            break
        elif kind == b"eXIf":
            orientation = _orientation(bytes(body))
        elif pixels_began:
            continue
        elif kind == b"PLTE" and colour == 3:
            kept.append(_png_chunk(kind, body, sound))
        elif kind == b"iCCP":
            profile = _inflated_profile(bytes(body)) if sound else BROKEN_PROFILE
        elif kind == b"tRNS" and sound:
            if colour == 3:
                kept.append(_png_chunk(kind, body[:256]))
            elif len(body) == (2 if colour == 0 else 6):
                transparent = struct.unpack(f">{len(body) // 2}H", body)
    return Container("png", (width, height), b"".join([data[:8], *kept]), orientation, profile, depth, transparent)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, bool]]:
    """Type, body and whether the checksum holds of each chunk; a cut chunk ends the walk with what there is of it."""
    view = memoryview(data)
    position = 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", view, position)
        body = view[position + 8 : position + 8 + length]
        checksum = view[position + 8 + length : position + 12 + length]
        yield kind, body, len(checksum) == 4 and zlib.crc32(body, zlib.crc32(kind)) == int.from_bytes(checksum)
        position += 12 + length


def _png_chunk(kind: bytes, body: bytes | memoryview, sound: bool = True) -> bytes:
    checksum = zlib.crc32(body, zlib.crc32(kind))
    return b"".join([struct.pack(">I4s", len(body), kind), body, (checksum if sound else checksum ^ 1).to_bytes(4)])


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
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_APP = range(0xE0, 0xF0)


def _jpeg(data: bytes) -> Container:
    view = memoryview(data)
    kept: list[bytes | memoryview] = [view[:2]]
    size, orientation, inverted, scans = (0, 0), 1, False, 0
    pieces: dict[int, bytes] = {}
    announced = 0
    position = 2
    while found := _MARKER.search(data, position):
        # What lies before the marker is a scan, or filler between segments that the decoder passes over as well.
        kept.append(view[position : found.start()])
        marker, start = data[found.end() - 1], found.start()
        if marker == _EOI:
            kept.append(view[start : start + 2])
            position = len(data)
            break
        if marker in (0x01, _SOI):
            position = start + 2
            continue
        (length,) = struct.unpack_from(">H", view, start + 2)
        position = start + 2 + length
        body = data[start + 4 : position] if marker in _APP else b""
        if marker == _SOS:
            scans += 1
        elif marker in _SOF:
            height, width = struct.unpack_from(">HH", view, start + 5)
            size = (width, height)
        if marker not in _APP and marker != _COM:
            kept.append(view[start:position])
        elif body.startswith(b"Adobe") and len(body) >= 12:
            inverted = True
            kept.append(view[start:position])
        elif body.startswith(b"JFIF\0") and len(body) >= 14:
            kept.append(view[start:position])
        elif body.startswith(b"Exif\0\0"):
            orientation = _orientation(body[6:])
        elif body.startswith(b"ICC_PROFILE\0") and len(body) >= 14:
            pieces[body[12]], announced = body[14:], body[13]
    kept.append(view[position:])
    if scans > MAX_SCANS:
        raise TooCostly(f"the JPEG picture has {scans} scans; at most {MAX_SCANS} are allowed")
    profile = _joined_profile(pieces, announced) if pieces else None
    return Container("jpeg", size, b"".join(kept), orientation, profile, inverted=inverted)


def _joined_profile(pieces: dict[int, bytes], announced: int) -> bytes:
    if sorted(pieces) != list(range(1, announced + 1)):
        return BROKEN_PROFILE
    profile = b"".join(pieces[number] for number in sorted(pieces))
    return profile if len(profile) <= MAX_PROFILE_BYTES else BROKEN_PROFILE


# -- WebP --------------------------------------------------------------------------------------------------------------


def _webp(data: bytes) -> Container:
    size = _webp_size(data)
    orientation, profile = 1, None
    position = 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == b"EXIF":
            orientation = _orientation(data[position + 8 : position + 8 + length].removeprefix(b"Exif\0\0"))
        elif kind == b"ICCP":
            profile = data[position + 8 : position + 8 + length] if length <= MAX_PROFILE_BYTES else BROKEN_PROFILE
        position += 8 + length + length % 2
    return Container("webp", size, data, orientation, profile)


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
