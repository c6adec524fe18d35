"""PNG: its chunks, of which only those that affect the pixels are kept."""

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

from zlib_ng.zlib_ng import crc32

from service.imaging.cicp import Coding, UnknownColours, profile_of
from service.imaging.containers.animation import Animation
from service.imaging.containers.apng import Frames
from service.imaging.containers.container import BROKEN_PROFILE, MAX_PROFILE_BYTES, Container, bounded
from service.imaging.containers.exif import orientation_of
from service.imaging.errors import Undecodable
from service.imaging.frame import Size
from service.imaging.provenance import Mark, mark_of

# Colour types.
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Always written anew, because a file that is cut within its IEND chunk still has all pixels.
END = b"\0\0\0\0IEND\xaeB`\x82"

# The chunks that are read, and those that they must precede. As in libpng, a chunk out of place is ignored, and so is a
# second one of its kind.
_BEFORE: dict[bytes, frozenset[bytes]] = {
    b"cICP": frozenset((b"PLTE", b"IDAT")),
    b"iCCP": frozenset((b"PLTE", b"IDAT")),
    b"PLTE": frozenset((b"IDAT",)),
    b"tRNS": frozenset((b"IDAT",)),
    b"acTL": frozenset((b"IDAT",)),
    b"eXIf": frozenset(),
    b"iTXt": frozenset(),
    b"caBX": frozenset(),
}

# The keyword of XMP in an iTXt chunk; then all that comes before the packet: that it is not compressed, its language,
# and the translated keyword.
_XMP = b"XML:com.adobe.xmp\0"
_BEFORE_PACKET = re.compile(re.escape(_XMP) + rb"\0.[^\0]*\0[^\0]*\0", re.DOTALL)

_Chunk = bytes | memoryview


def read_png(data: bytes) -> Container:
    chunks = bounded(png_chunks(data))
    kind, header = next(chunks, (b"", memoryview(b"")))
    if kind != b"IHDR" or len(header) != 12 + 13:
        raise Undecodable("the PNG picture does not begin with its header")
    width, height, depth, colour = struct.unpack_from(">IIBB", header, 8)
    found = _Chunks(depth, colour)
    for kind, chunk in chunks:
        found.add(kind, chunk)
    profile, fault = found.profile()
    animation = found.animation((width, height), header)
    return Container(
        "png",
        (width, height),
        b"".join((_SIGNATURE, header, *found.kept())),
        orientation=orientation_of(found.body(b"eXIf")),
        profile=profile,
        profile_fault=fault,
        frames=len(animation.cels) if animation else 1,
        depth=depth,
        colour=colour,
        transparent=found.transparent(),
        mark=found.mark(),
        c2pa=b"caBX" in found.first,
        animation=animation,
    )


def png_size(file: BinaryIO) -> Size:
    width, height = struct.unpack(">16xII", file.read(24))
    return width, height


@dataclass(slots=True)
class _Chunks:
    """The chunks that are read: `first` has the first valid one of each kind, `pixels` all IDAT chunks and the end."""

    depth: int
    colour: int
    first: dict[bytes, memoryview] = field(default_factory=dict)
    pixels: list[_Chunk] = field(default_factory=list)
    frames: Frames = field(default_factory=Frames)
    _seen: set[bytes] = field(default_factory=set)

    def add(self, kind: bytes, chunk: memoryview) -> None:
        if kind == b"IDAT":
            self.pixels.append(chunk)
            self.frames.add_default(chunk[8:-4])
        elif kind == b"IEND":
            self.pixels.append(END)
        elif kind == b"fcTL":
            self.frames.add_control(chunk[8:-4] if _has_valid_crc(chunk) else chunk[:0])
        elif kind == b"fdAT":
            self.frames.add_pixels(chunk[8:-4])
        elif kind == b"PLTE" and self.colour == PALETTE and kind in self.first and b"IDAT" not in self._seen:
            raise Undecodable("the PNG picture has two palettes")
        elif kind in _BEFORE and kind not in self.first and self._is_valid(kind, chunk):
            self.first[kind] = chunk
        self._seen.add(kind)

    def _is_valid(self, kind: bytes, chunk: memoryview) -> bool:
        """Whether the chunk is in its place and intact; damaged colours and palettes are kept, to be reported later."""
        if _BEFORE[kind] & self._seen or (kind == b"iTXt" and chunk[8 : 8 + len(_XMP)] != _XMP):
            return False
        if kind in (b"cICP", b"iCCP", b"PLTE", b"caBX"):
            return True
        return _has_valid_crc(chunk) and self._is_whole(kind, len(chunk) - 12)

    def _is_whole(self, kind: bytes, length: int) -> bool:
        if kind == b"acTL":
            return length == 8
        return kind != b"tRNS" or self._is_transparency(length)

    def _is_transparency(self, length: int) -> bool:
        if self.colour == PALETTE:
            # A palette may have more entries than its bit depth can address.
            entries: int = min(len(self.body(b"PLTE")) // 3, 1 << self.depth)
            return 1 <= length <= entries
        return (self.colour, length) in ((GREY, 2), (RGB, 6))

    def body(self, kind: bytes) -> bytes:
        return bytes(self.first[kind][8:-4]) if kind in self.first else b""

    def kept(self) -> Iterator[_Chunk]:
        """The chunks that the decoder needs; raises Undecodable."""
        if self.colour == PALETTE:
            length = len(self.body(b"PLTE"))
            if not length or length % 3:
                raise Undecodable("the PNG picture has no palette, or a broken one")
            yield from (self.first[kind] for kind in (b"PLTE", b"tRNS") if kind in self.first)
        yield from self.pixels

    def animation(self, canvas: Size, header: memoryview) -> Animation | None:
        if b"acTL" not in self.first:
            return None
        plays = int.from_bytes(self.body(b"acTL")[4:])
        return self.frames.animation(canvas, plays, partial(self._still, header))

    def _still(self, header: memoryview, size: Size, pixels: Sequence[memoryview]) -> Container:
        """A PNG of one frame."""
        head = png_chunk(b"IHDR", struct.pack(">II", *size) + header[16:-4])
        colours = (self.first[kind] for kind in (b"PLTE", b"tRNS") if kind in self.first)
        data = b"".join((_SIGNATURE, head, *colours, png_chunk(b"IDAT", b"".join(pixels)), END))
        return Container("png", size, data, depth=self.depth, colour=self.colour, transparent=self.transparent())

    def transparent(self) -> tuple[int, ...] | None:
        key = self.body(b"tRNS")
        return struct.unpack(f">{len(key) // 2}H", key) if key and self.colour != PALETTE else None

    def mark(self) -> Mark | None:
        if b"iTXt" not in self.first:
            return None
        body = self.first[b"iTXt"][8:-4]
        before = _BEFORE_PACKET.match(body)
        return mark_of(body[before.end() :]) if before else None

    def profile(self) -> tuple[bytes | None, str | None]:
        """The profile that cICP names, else that of iCCP; and why the colours are not those of cICP, if they are not.

        cICP wins even where its colours cannot be converted: they are then taken for sRGB. A damaged chunk is ignored,
        as libpng does.
        """
        if b"cICP" not in self.first:
            return self._embedded_profile(), None
        if len(self.body(b"cICP")) != 4 or not _has_valid_crc(self.first[b"cICP"]):
            return self._embedded_profile(), "the PNG picture declares its colours in a damaged chunk, which is ignored"
        try:
            return profile_of(Coding(*self.body(b"cICP")), grey=self.colour in (GREY, GREY_ALPHA)), None
        except UnknownColours as unknown:
            return None, f"the PNG picture declares {unknown}, which cannot be converted and are taken for sRGB"

    def _embedded_profile(self) -> bytes | None:
        if b"iCCP" not in self.first:
            return None
        return _inflated_profile(self.body(b"iCCP")) if _has_valid_crc(self.first[b"iCCP"]) else BROKEN_PROFILE


def png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Type and bytes of each chunk up to IEND; the last one may be cut."""
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


def _has_valid_crc(chunk: memoryview) -> bool:
    return bool(crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:]))


def _inflated_profile(chunk: bytes) -> bytes:
    _name, _, rest = chunk.partition(b"\0")
    inflate = zlib.decompressobj()
    try:
        profile = inflate.decompress(rest[1:], MAX_PROFILE_BYTES)
    except zlib.error:
        return BROKEN_PROFILE
    return profile if inflate.eof else BROKEN_PROFILE
