"""The segments of a JPEG."""

import re
import struct
from collections.abc import Iterator

from service.imaging.containers.container import BROKEN_PROFILE, MAX_PROFILE_BYTES, Container, bounded
from service.imaging.containers.exif import orientation_of
from service.imaging.errors import TooCostly

# Each scan of a progressive JPEG passes over the whole picture; real encoders write about ten.
MAX_SCANS = 100


# Within a scan 0xFF is followed by a stuffed zero or a restart marker; any other byte begins a segment.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_BARE = (0x01, _SOI, _EOI)
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_APP = range(0xE0, 0xF0)


def read_jpeg(data: bytes) -> Container:
    kept: list[bytes | memoryview] = [data[:2]]
    size, orientation, scans = (0, 0), 1, 0
    pieces: dict[int, bytes] = {}
    announced = 0
    for before, marker, segment in bounded(_jpeg_segments(data)):
        if scans:
            kept.append(before)
        body = bytes(segment[4:]) if marker in _APP else b""
        if body.startswith(b"Exif\0\0"):
            orientation = orientation_of(body[6:])
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
