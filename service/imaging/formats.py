"""The table of picture formats: how each is named, recognized, read and encoded.

A new format needs a row here, with its name in `Format` and `PillowName`; one that is read also a `Reader` with a
parser in `containers`, and one that pictures are exported in an encoding here and an encoder in `encode`.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import BinaryIO, ClassVar, Literal

from service.imaging.containers.container import Container
from service.imaging.containers.gif import gif_size, read_gif
from service.imaging.containers.jpeg import jpeg_size, read_jpeg
from service.imaging.containers.png import png_size, read_png
from service.imaging.containers.webp import read_webp, webp_size
from service.imaging.frame import Size

Format = Literal["png", "jpeg", "webp", "avif", "gif"]
PillowName = Literal["PNG", "JPEG", "WEBP", "AVIF", "GIF"]

Subsampling = Literal["4:2:0", "4:2:2", "4:4:4"]


@dataclass(frozen=True, slots=True)
class PngEncoding:
    """`palette` allows an indexed PNG where that loses nothing; `colors` makes one, by reducing an image's colours."""

    format: ClassVar[Format] = "png"
    compression: int = 9
    thorough: bool = False
    palette: bool = False
    colors: int | None = None


@dataclass(frozen=True, slots=True)
class JpegEncoding:
    format: ClassVar[Format] = "jpeg"
    quality: int = 85
    progressive: bool = False
    subsampling: Subsampling = "4:2:0"


@dataclass(frozen=True, slots=True)
class WebpEncoding:
    format: ClassVar[Format] = "webp"
    quality: int = 80
    lossless: bool = False
    method: int = 2


# An AVIF picture takes the memory of several others, and decoders refuse longer sides.
MAX_AVIF_PIXELS = 1 << 24
MAX_AVIF_SIDE = 1 << 15


@dataclass(frozen=True, slots=True)
class AvifEncoding:
    """`speed` from 6 (smallest) to 9 (fastest)."""

    format: ClassVar[Format] = "avif"
    quality: int = 58
    speed: int = 9


@dataclass(frozen=True, slots=True)
class GifEncoding:
    """256 colours, dithered."""

    format: ClassVar[Format] = "gif"


Encoding = PngEncoding | JpegEncoding | WebpEncoding | AvifEncoding | GifEncoding


def quality_of(encoding: Encoding) -> int | None:
    """The quality that an encoding asks for; None if it is lossless."""
    match encoding:
        case JpegEncoding() | AvifEncoding() | WebpEncoding(lossless=False):
            return encoding.quality
    return None


def at_quality(encoding: Encoding, quality: int) -> Encoding:
    """A lossy encoding with another quality; a lossless one unchanged."""
    match encoding:
        case JpegEncoding() | AvifEncoding() | WebpEncoding(lossless=False):
            return replace(encoding, quality=quality)
    return encoding


def colors_of(encoding: Encoding) -> int | None:
    """The limit of the palette that an encoding makes; None if it makes none."""
    return encoding.colors if isinstance(encoding, PngEncoding) else None


def avif_refusal(size: Size) -> str | None:
    """Why a picture of that size is not exported as AVIF, if it is not."""
    width, height = size
    if width * height > MAX_AVIF_PIXELS:
        return f"the AVIF would have {width * height} pixels; at most {MAX_AVIF_PIXELS} are allowed"
    if max(size) > MAX_AVIF_SIDE:
        return f"the AVIF would be {width} x {height}; at most {MAX_AVIF_SIDE} pixels a side are allowed"
    return None


@dataclass(frozen=True, slots=True)
class Reader:
    """How files of a format are recognized and parsed.

    magic        matches their first SNIFF_BYTES bytes
    read         parses the headers of a whole file
    stored_size  finds the size in the headers of an open file; None, or struct.error, if there is none
    """

    magic: re.Pattern[bytes]
    read: Callable[[bytes], Container]
    stored_size: Callable[[BinaryIO], Size | None]


@dataclass(frozen=True, slots=True)
class FormatRow:
    """One picture format.

    pillow    Pillow's name of it, which is also its name in answers
    plugin    the module of Pillow that decodes and encodes it
    label     its name in sentences
    suffix    of its files
    mime      its MIME type
    reader    None: pictures of this format are not accepted
    encoding  how to encode it; None: it is read only
    aliases   other names that a request may use
    """

    pillow: PillowName
    plugin: str
    label: str
    suffix: str
    mime: str
    reader: Reader | None
    encoding: type[Encoding] | None
    aliases: tuple[str, ...] = ()


TABLE: dict[Format, FormatRow] = {
    "png": FormatRow(
        pillow="PNG",
        plugin="PngImagePlugin",
        label="PNG",
        suffix=".png",
        mime="image/png",
        reader=Reader(re.compile(rb"\x89PNG\r\n\x1a\n"), read_png, png_size),
        encoding=PngEncoding,
    ),
    "jpeg": FormatRow(
        pillow="JPEG",
        plugin="JpegImagePlugin",
        label="JPEG",
        suffix=".jpg",
        mime="image/jpeg",
        reader=Reader(re.compile(rb"\xff\xd8\xff"), read_jpeg, jpeg_size),
        encoding=JpegEncoding,
        aliases=("jpg",),
    ),
    "webp": FormatRow(
        pillow="WEBP",
        plugin="WebPImagePlugin",
        label="WebP",
        suffix=".webp",
        mime="image/webp",
        reader=Reader(re.compile(rb"RIFF.{4}WEBP", re.DOTALL), read_webp, webp_size),
        encoding=WebpEncoding,
    ),
    "avif": FormatRow(
        pillow="AVIF",
        plugin="AvifImagePlugin",
        label="AVIF",
        suffix=".avif",
        mime="image/avif",
        reader=None,
        encoding=AvifEncoding,
    ),
    "gif": FormatRow(
        pillow="GIF",
        plugin="GifImagePlugin",
        label="GIF",
        suffix=".gif",
        mime="image/gif",
        reader=Reader(re.compile(rb"GIF8[79]a"), read_gif, gif_size),
        encoding=GifEncoding,
    ),
}
# The formats of exports, in the order of the table, and what a request may call them.
FORMATS: tuple[Format, ...] = tuple(name for name, row in TABLE.items() if row.encoding)
# Those of a request that names none.
DEFAULT_FORMATS: tuple[Format, ...] = ("png", "jpeg", "webp")
NAMES: dict[str, Format] = {alias: name for name in FORMATS for alias in (name, *TABLE[name].aliases)}

SNIFF_BYTES = 16


def sniff(head: bytes) -> Format | None:
    """The format that a file's first `SNIFF_BYTES` bytes prove, whatever its name or declared type says.

    None for a format that is not accepted.
    """
    return next((name for name, row in TABLE.items() if row.reader and row.reader.magic.match(head)), None)


def reader_of(name: Format) -> Reader:
    """The reader of a format that `sniff` recognized."""
    reader = TABLE[name].reader
    if reader is None:
        raise ValueError(f"{name} is not read")
    return reader


def formats_of(names: Iterable[str]) -> tuple[Format, ...]:
    """The formats of exports with these names, in any case, each once and in the order of the table.

    Raises ValueError for another name.
    """
    requested = {NAMES.get(name.strip().lower()) for name in names}
    if None in requested:
        raise ValueError(f"a name is none of {listed(NAMES, 'and')}")
    return tuple(each for each in FORMATS if each in requested)


def listed(words: Iterable[str], conjunction: str) -> str:
    """Words as a sentence has them: `a, b and c`."""
    *first, last = words
    return f"{', '.join(first)} {conjunction} {last}" if first else last


# For messages: the formats that are read.
READABLE = listed((row.label for row in TABLE.values() if row.reader), "or")
