"""JPEG: its segments, of which application data and comments are stripped."""

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from service.imaging.containers.container import BROKEN_PROFILE, MAX_PROFILE_BYTES, Container, bounded
from service.imaging.containers.exif import orientation_of
from service.imaging.errors import TooCostly, Undecodable
from service.imaging.frame import Size
from service.imaging.provenance import mark_of

# Each scan of a progressive JPEG costs a pass over the whole picture; real encoders write about ten.
MAX_SCANS = 100

# Skipped at most while only the size is read; real files have about ten before it.
_SEGMENTS_BEFORE_SIZE = 1_000

# In scan data 0xFF is followed by a stuffed zero or is part of a restart marker; anything else begins a segment.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_BARE = (0x01, _SOI, _EOI)
_END = b"\xff\xd9"
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = (b"\xc2", b"\xca")
_APP = range(0xE0, 0xF0)
_APP1, _APP11 = 0xE1, 0xEB
# Markers that may follow a scan: tables, DNL, DRI, metadata, another scan, the end.
_AFTER_SCAN = frozenset((0xC4, 0xCC, _SOS, 0xDB, 0xDC, 0xDD, *_APP, _COM, _EOI))

_UNSUPPORTED = (
    dict.fromkeys((0xC3, 0xCB), "lossless JPEG")
    | dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE), "hierarchical JPEG")
    | {0xF7: "JPEG-LS"}
)

# The main packet of XMP: that of an extended one goes on in other segments, which are not read.
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
# A JUMBF superbox of ISO/IEC 19566-5, the first box of which is its description, with the label "c2pa".
_C2PA = re.compile(rb"JP.{6}(?:.{4}jumb|\0\0\0\x01jumb.{8}).{4}jumd.{16}.c2pa\0", re.DOTALL)

# Scan data to append to a file without an end marker. libjpeg fills in zeros; these differ from the first bits on.
# If the file decodes to the same pixels with each of them, the decoder read none, so no scan data is missing.
_FILLINGS = (b"\xff\0" * 32, b"\x5a\xc3\x96\x0f\x71\x2d\xe8\x34" * 8, b"\xa5\x3c\x69\xf0\x8e\xd2\x17\xcb" * 8)


def read_jpeg(data: bytes) -> Container:
    found = _Headers()
    for before, marker, segment in bounded(_segments(data)):
        found.add(before, marker, segment)
    if found.scans > MAX_SCANS:
        raise TooCostly(f"the JPEG picture has {found.scans} scans; at most {MAX_SCANS} are allowed")
    if not found.ended and not found.has_all_scans():
        raise Undecodable("the JPEG picture is broken or cut")
    return Container(
        "jpeg",
        found.size,
        b"".join((data[:2], *found.kept)),
        orientation=orientation_of(found.exif or b""),
        profile=found.profile(),
        endings=(b"",) if found.ended else found.endings(),
        mark=mark_of(found.xmp or b""),
        c2pa=found.c2pa,
    )


def jpeg_size(file: BinaryIO) -> Size | None:
    """Skips the segments before the frame header, whatever their length."""
    file.seek(2)
    for _ in range(_SEGMENTS_BEFORE_SIZE):
        fill, marker, length = struct.unpack(">BBH", file.read(4))
        if fill != 0xFF:
            return None
        if marker in _SOF:
            height, width = struct.unpack(">xHH", file.read(5))
            return width, height
        file.seek(length - 2, os.SEEK_CUR)
    return None


@dataclass(slots=True)
class _Headers:
    """The data of the segments; metadata counts before the first scan only, where decoders look for it."""

    kept: list[memoryview] = field(default_factory=list)
    size: Size = (0, 0)
    exif: bytes | None = None
    xmp: bytes | None = None
    c2pa: bool = False
    scans: int = 0
    ended: bool = False
    _frame: memoryview = field(default_factory=lambda: memoryview(b""))
    _scan_headers: list[memoryview] = field(default_factory=list)
    _profile_pieces: dict[int, bytes] = field(default_factory=dict)
    _profile_announced: int = 0
    _restarts: int = 0

    def add(self, before: memoryview, marker: int, segment: memoryview) -> None:
        if self.scans:
            self.kept.append(before)
        if marker in _APP:
            self._add_metadata(marker, bytes(segment[4:]), segment)
        elif marker != _COM:
            self.kept.append(segment)
        if marker in _SOF or marker in _UNSUPPORTED:
            self._add_frame(marker, segment)
        elif marker == _SOS:
            self.scans += 1
            self._scan_headers.append(segment)
        elif marker == _EOI:
            self.ended = len(segment) > 0
            self._restarts = len(_RESTART.findall(before))

    def _add_metadata(self, marker: int, body: bytes, segment: memoryview) -> None:
        # The only application segments that affect decoding: they tell YCbCr, RGB, CMYK and YCCK apart.
        if body.startswith((b"Adobe", b"JFIF\0")) and len(body) >= 12:
            self.kept.append(segment)
        elif self.scans:
            return
        elif body.startswith(b"Exif\0\0") and self.exif is None:
            self.exif = body
        elif body.startswith(b"ICC_PROFILE\0") and len(body) >= 14:
            self._profile_pieces[body[12]], self._profile_announced = body[14:], body[13]
        elif marker == _APP1 and body.startswith(_XMP) and self.xmp is None:
            self.xmp = body[len(_XMP) :]
        elif marker == _APP11 and _C2PA.match(body):
            self.c2pa = True

    def _add_frame(self, marker: int, segment: memoryview) -> None:
        """Raises Undecodable for a kind of JPEG that is not supported."""
        kind = _UNSUPPORTED.get(marker)
        if kind is None and 8 < segment[4] <= 16:
            kind = f"{segment[4]}-bit JPEG"
        if kind is None and segment[9] not in (0, 1, 3, 4) and len(segment) == 10 + 3 * segment[9]:
            kind = f"{segment[9]}-channel JPEG"
        if kind:
            raise Undecodable(f"{kind} pictures are not supported")
        height, width = struct.unpack_from(">HH", segment, 5)
        self.size, self._frame = (width, height), segment

    def has_all_scans(self) -> bool:
        """Whether the scan headers cover every coefficient of every component down to its lowest bit."""
        missing = dict.fromkeys(self._frame[10::3], (1 << 64) - 1)
        for header in self._scan_headers[:MAX_SCANS]:
            first, last, bits = header[-3], header[-2], header[-1] & 15
            if self._frame[1:2] not in _PROGRESSIVE:
                first, last, bits = 0, 63, 0
            for component in header[5 : 5 + 2 * header[4] : 2] if bits == 0 else ():
                missing[component] = missing.get(component, 0) & ~((2 << last) - (1 << first))
        return self.scans > 0 and not any(missing.values())

    def endings(self) -> tuple[bytes, ...]:
        """Alternatives for a missing end marker: unless all decode to the same pixels, scan data is missing too."""
        restarts = [bytes((0xFF, 0xD0 + number % 8)) for number in range(self._restarts, self._restarts + 8)]
        return (_END, *(b"".join(filling + restart for restart in restarts) + _END for filling in _FILLINGS))

    def profile(self) -> bytes | None:
        pieces = self._profile_pieces
        if not pieces:
            return None
        if sorted(pieces) != list(range(1, self._profile_announced + 1)):
            return BROKEN_PROFILE
        profile = b"".join(pieces[number] for number in sorted(pieces))
        return profile if len(profile) <= MAX_PROFILE_BYTES else BROKEN_PROFILE


def _segments(data: bytes) -> Iterator[tuple[memoryview, int, memoryview]]:
    """For each marker up to the end of the picture: the scan data before it, the marker, and its whole segment.

    If the end marker is missing or damaged, one with an empty segment is generated in its place.
    """
    view = memoryview(data)
    position, scanned = 2, False
    while found := _MARKER.search(data, position):
        start, marker = found.start(), data[found.end() - 1]
        end = _end(view, start, marker)
        if end > len(data) or (scanned and marker not in _AFTER_SCAN):
            break
        yield view[position:start], marker, view[start:end]
        if marker == _EOI:
            return
        position, scanned = end, scanned or marker == _SOS
    else:
        start = len(data)
    # A trailing 0xFF is the first half of a marker or of a stuffed byte.
    yield memoryview(bytes(view[position:start]).rstrip(b"\xff")), _EOI, view[:0]


def _end(view: memoryview, start: int, marker: int) -> int:
    """The offset at which the segment of the marker at `start` ends, which may be beyond the end of the file."""
    if marker in _BARE:
        return start + 2
    if len(view) < start + 4:
        return len(view) + 1
    return start + 2 + int.from_bytes(view[start + 2 : start + 4])
