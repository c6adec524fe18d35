"""GIF: its blocks. Each image is wrapped as a still GIF, which Pillow decodes."""

import math
import struct
from collections.abc import Callable, Iterator
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
# Bits of how a frame is shown, the hundredths of a second for which it is, and its transparent index.
_CONTROL_FIELDS = struct.Struct("<BHB")
_NO_CONTROL = (0, 0, 0)
# The bits of an index. The specification begins at 2, but others read 1 too.
_CODE_SIZES = range(1, 9)

# Some old specifications say 4 instead of 3, and browsers take both.
_DISPOSALS: dict[int, Disposal] = {2: "background", 3: "previous", 4: "previous"}
_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
# A sub-block of three bytes, of the kind that has the number of repetitions.
_COUNT_FOLLOWS = b"\3\1"
_XMP, _C2PA = b"XMP DataXMP", b"C2PA_GIF"
# XMP is not in sub-blocks but followed by 258 bytes that lead a reader of sub-blocks to its end.
_AFTER_XMP = 258


class _Cut(Exception):
    """The file ends within a block."""


def read_gif(data: bytes) -> Container:
    blocks = _Blocks(data)
    fault = None
    try:
        for kind in bounded(blocks.walk()):
            blocks.add(kind)
    except _Cut:
        fault = "the GIF picture is cut"
    if not blocks.cels:
        raise Undecodable(fault or "the GIF picture has no image")
    first, screen = blocks.cels[0], blocks.screen
    canvas = screen if all(screen) else first.size
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
        largest=max((cel.size for cel in blocks.cels), key=math.prod),
    )


def gif_size(file: BinaryIO) -> Size:
    """The logical screen, which may have no size."""
    width, height = struct.unpack("<6xHH", file.read(10))
    return width, height


@dataclass(slots=True)
class _Blocks:
    """The blocks of a file, as far as they are read: `at` is the offset of the first byte that is not."""

    data: bytes
    at: int = 13
    cels: list[Cel] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)
    plays: int = 1
    mark: Mark | None = None
    c2pa: bool = False
    _control: tuple[int, int, int] = _NO_CONTROL
    _table: bytes | memoryview = b""
    _marked: bool = False

    @property
    def screen(self) -> Size:
        width, height = struct.unpack_from("<6xHH", self.data)
        return width, height

    def walk(self) -> Iterator[int]:
        """The kind of each block, of which `at` is then the content. As in browsers, rubbish ends the file."""
        (flags,) = struct.unpack_from("<10xBxx", self.data)
        self._table = self._read_table(flags)
        while self.at < len(self.data) and self.data[self.at] in (_EXTENSION, _IMAGE):
            yield self._byte()

    def add(self, kind: int) -> None:
        if kind == _IMAGE:
            self._add_image()
            return
        label = self._byte()
        content = self._read(self._byte())
        start = self.at
        if content:
            self._skip()
        if label == _CONTROL and len(content) >= _CONTROL_FIELDS.size:
            self._control = _CONTROL_FIELDS.unpack_from(content)
        elif label == _APPLICATION:
            self._add_application(bytes(content), self.data[start : self.at])

    def _add_application(self, name: bytes, blocks: bytes) -> None:
        if name in _LOOPS and blocks.startswith(_COUNT_FOLLOWS):
            count = int.from_bytes(blocks[2:4], "little")
            self.plays = count and count + 1
        elif name == _XMP and not self._marked:
            self._marked = True
            self.mark = mark_of(blocks[:-_AFTER_XMP])
        self.c2pa = self.c2pa or name.startswith(_C2PA)

    def _add_image(self) -> None:
        left, top, width, height, flags = struct.unpack("<HHHHB", self._read(9))
        table = self._read_table(flags) if flags & _TABLE else self._table
        start = self.at
        packing, hundredths, key = self._control
        self._control = _NO_CONTROL
        try:
            self._byte()
            self._skip()
        finally:
            # An image that is cut counts: it is there, but cannot be decoded.
            pixels = memoryview(self.data)[start : self.at]
            palette = partial(_palette, table, key if packing & 1 else None)
            still = partial(_still, (width, height), flags & _INTERLACED, pixels, palette)
            self.cels.append(Cel(still, left, top, width, height, _DISPOSALS.get(packing >> 2 & 7, "keep")))
            self.durations.append(10 * hundredths)

    def _read_table(self, flags: int) -> bytes | memoryview:
        return self._read(3 << (flags & 7) + 1) if flags & _TABLE else b""

    def _byte(self) -> int:
        return self._read(1)[0]

    def _read(self, length: int) -> memoryview:
        if self.at + length > len(self.data):
            raise _Cut
        self.at += length
        return memoryview(self.data)[self.at - length : self.at]

    def _skip(self) -> None:
        """Go behind the sub-blocks, of which there may be a hundred thousand."""
        data, at = self.data, self.at
        try:
            while length := data[at]:
                at += 1 + length
        except IndexError:
            raise _Cut from None
        self.at = at + 1


def _still(size: Size, interlaced: int, pixels: memoryview, palette: Callable[[], bytes]) -> Container:
    """A GIF of one image that fills it, without a table of colours, so that it is decoded to indices."""
    if not pixels or pixels[0] not in _CODE_SIZES:
        raise Undecodable("the GIF picture is broken or cut")
    screen = struct.pack("<6sHH3x", b"GIF89a", *size)
    image = struct.pack("<B4xHHB", _IMAGE, *size, interlaced)
    return Container("gif", size, b"".join((screen, image, pixels, b";")), palette=palette())


def _palette(table: bytes | memoryview, key: int | None) -> bytes:
    """256 colours as RGBA, of which one may be transparent; those that the table lacks are black, as in Chromium."""
    rgb = bytes(table).ljust(3 * 256, b"\0")
    palette = bytearray(b"\xff" * 1024)
    for channel in range(3):
        palette[channel::4] = rgb[channel::3]
    if key is not None:
        palette[4 * key + 3] = 0
    return bytes(palette)
