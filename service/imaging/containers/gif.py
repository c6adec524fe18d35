"""GIF: its blocks, of which each image becomes a file of its own."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

from service.imaging.containers.animation import Animation, Cel, Disposal
from service.imaging.containers.container import Container, bounded
from service.imaging.errors import Undecodable
from service.imaging.frame import Size
from service.imaging.provenance import Mark, mark_of
from service.imaging.timing import Timing

_EXTENSION, _IMAGE = 0x21, 0x2C
_CONTROL, _APPLICATION = 0xF9, 0xFF
_TABLE, _INTERLACED = 0x80, 0x40
_TRAILER = b";"

_DISPOSALS: dict[int, Disposal] = {2: "background", 3: "previous"}
_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
_XMP, _C2PA = b"XMP DataXMP", b"C2PA_GIF"
# XMP is not in sub-blocks but followed by 258 bytes that lead a reader of sub-blocks to its end.
_AFTER_XMP = 258

# The level of each index where there is no table of colours.
_NO_TABLE = bytes(3 * 256)


class _Cut(Exception):
    """The file ends within a block."""


def read_gif(data: bytes) -> Container:
    blocks = _Blocks(data)
    fault = None
    try:
        for kind in bounded(blocks.walk()):
            if kind == _EXTENSION:
                blocks.add_extension()
            else:
                blocks.add_image()
    except _Cut:
        fault = "the GIF picture is cut"
    if not blocks.cels:
        raise Undecodable(fault or "the GIF picture has no image")
    first = blocks.cels[0]
    canvas = blocks.screen if all(blocks.screen) else (first.width, first.height)
    animation = Animation(canvas, blocks.cels, Timing(tuple(blocks.durations), blocks.plays), fault)
    return Container(
        "gif",
        canvas,
        data,
        frames=len(blocks.cels),
        mark=blocks.mark,
        c2pa=blocks.c2pa,
        animation=animation if fault or len(blocks.cels) > 1 else None,
        first=first,
        largest=max(((cel.width, cel.height) for cel in blocks.cels), key=lambda size: size[0] * size[1]),
    )


def gif_size(file: BinaryIO) -> Size | None:
    """The logical screen, or where it has no size the first image."""
    width, height = struct.unpack("<6xHH", file.read(10))
    if width and height:
        return width, height
    return None


@dataclass(slots=True)
class _Blocks:
    """The blocks of a file; `at` is the offset of what follows the last byte that was read."""

    data: bytes
    at: int = 13
    cels: list[Cel] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)
    plays: int = 1
    mark: Mark | None = None
    c2pa: bool = False
    _control: tuple[int, int, int] = (0, 0, 0)
    _table: memoryview = field(default_factory=lambda: memoryview(b""))
    _seen: set[bytes] = field(default_factory=set)

    @property
    def screen(self) -> Size:
        width, height = struct.unpack_from("<HH", self.data, 6)
        return width, height

    def walk(self) -> Iterator[int]:
        """The kind of each block, of which `at` is then the content: as in browsers, rubbish ends the file."""
        (flags,) = struct.unpack_from("<10xBxx", self.data)
        self._table = self._read_table(flags)
        while self.at < len(self.data) and self.data[self.at] in (_EXTENSION, _IMAGE):
            self.at += 1
            yield self.data[self.at - 1]

    def add_extension(self) -> None:
        label = self._read(1)[0]
        if label == _CONTROL:
            body = b"".join(self._sub_blocks())
            if len(body) >= 4:
                self._control = struct.unpack_from("<BHB", body)
        elif label == _APPLICATION:
            self._add_application()
        else:
            self._skip()

    def _add_application(self) -> None:
        length = self._read(1)[0]
        name = bytes(self._read(length))
        if name == _XMP:
            self._add_xmp()
        elif name in _LOOPS:
            for block in self._sub_blocks():
                if len(block) >= 3 and block[0] == 1 and not self._seen.issuperset((b"loop",)):
                    self._seen.add(b"loop")
                    count = int.from_bytes(block[1:3], "little")
                    self.plays = count and count + 1
        else:
            self.c2pa = self.c2pa or name.startswith(_C2PA)
            if length:
                self._skip()

    def _add_xmp(self) -> None:
        start = self.at
        self._skip()
        packet = memoryview(self.data)[start : max(start, self.at - _AFTER_XMP)]
        if b"xmp" not in self._seen:
            self._seen.add(b"xmp")
            self.mark = mark_of(packet)

    def add_image(self) -> None:
        left, top, width, height, flags = struct.unpack("<HHHHB", self._read(9))
        table = self._read_table(flags) if flags & _TABLE else self._table
        start = self.at
        self._read(1)
        packing, hundredths, transparent = self._control
        key = transparent if packing & 1 else None
        cut = False
        try:
            self._skip()
        except _Cut:
            cut = True
        image = memoryview(self.data)[start : self.at]
        still = partial(_still, (width, height), flags & _INTERLACED, image, table, key)
        self.cels.append(Cel(still, left, top, width, height, _DISPOSALS.get(packing >> 2 & 7, "keep")))
        self.durations.append(10 * hundredths)
        self._control = (0, 0, 0)
        if cut:
            raise _Cut

    def _read_table(self, flags: int) -> memoryview:
        return self._read(3 << (flags & 7) + 1) if flags & _TABLE else memoryview(b"")

    def _read(self, length: int) -> memoryview:
        if self.at + length > len(self.data):
            self.at = len(self.data)
            raise _Cut
        self.at += length
        return memoryview(self.data)[self.at - length : self.at]

    def _sub_blocks(self) -> Iterator[memoryview]:
        while length := self._read(1)[0]:
            yield self._read(length)

    def _skip(self) -> None:
        """Go behind the sub-blocks: there may be a hundred thousand of them."""
        data, at = self.data, self.at
        try:
            while data[at]:
                at += 1 + data[at]
        except IndexError:
            self.at = len(data)
            raise _Cut from None
        self.at = at + 1


def _still(size: Size, interlaced: int, image: memoryview, table: memoryview, key: int | None) -> Container:
    """A GIF of one image that fills it, without a table of colours, so that it is decoded to indices."""
    data = b"".join(
        (
            struct.pack("<6sHHBBB", b"GIF89a", *size, 0, 0, 0),
            struct.pack("<BHHHHB", _IMAGE, 0, 0, *size, interlaced),
            image,
            _TRAILER,
        )
    )
    return Container("gif", size, data, palette=_palette(table, key))


def _palette(table: memoryview, key: int | None) -> bytes:
    """256 colours as RGBA: of which one may be transparent."""
    rgb = bytes(table).ljust(len(_NO_TABLE), b"\0")
    palette = bytearray(b"\xff" * 1024)
    for channel in range(3):
        palette[channel::4] = rgb[channel::3]
    if key is not None:
        palette[4 * key + 3] = 0
    return bytes(palette)
