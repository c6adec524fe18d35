"""Generated pictures: PNGs of any kind written chunk by chunk, JPEG and WebP by Pillow."""

import math
import struct
import zlib
from collections.abc import Iterable
from functools import cache
from io import BytesIO

from PIL import Image

SIZE = (96, 64)

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
_CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}


def scene(x: float, y: float) -> tuple[float, float, float, float]:
    """Red, green, blue and alpha, 0 to 1, at a position, 0 to 1: soft waves, dark to bright, and saturated corners."""
    red = 0.5 + 0.5 * math.sin(9 * x + 2 * y)
    green = x * (1 - 0.3 * y)
    blue = 0.5 + 0.5 * math.cos(7 * y - 3 * x)
    if x < 0.25 and y < 0.25:
        red, green, blue = float(x < 0.12), float(y < 0.12), float(x >= 0.12)
    return red, green, blue, min(1.0, max(0.0, 1.4 * y - 0.2))


@cache
def samples(depth: int, colour: int, size: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
    """The scene, row by row; cached, because the tests make a hundred pictures of the same few kinds."""
    highest = 2**depth - 1
    rows = []
    for row in range(size[1]):
        line: list[int] = []
        for column in range(size[0]):
            red, green, blue, alpha = scene(column / size[0], row / size[1])
            grey = 0.3 * red + 0.6 * green + 0.1 * blue
            values = {
                GREY: (grey,),
                RGB: (red, green, blue),
                PALETTE: (grey,),
                GREY_ALPHA: (grey, alpha),
                RGB_ALPHA: (red, green, blue, alpha),
            }[colour]
            line += [round(value * highest) for value in values]
        rows.append(tuple(line))
    return tuple(rows)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), kind) + body + zlib.crc32(kind + body).to_bytes(4)


def png(
    depth: int,
    colour: int,
    *,
    profile: bytes | None = None,
    orientation: int | None = None,
    transparency: bytes | None = None,
    extra: bytes = b"",
    size: tuple[int, int] = SIZE,
) -> bytes:
    """A PNG of the scene, written sample by sample."""
    rows = bytearray()
    for line in samples(depth, colour, size):
        rows.append(0)
        rows += _packed(line, depth)
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))]
    if profile is not None:
        parts.append(chunk(b"iCCP", b"test\0\0" + zlib.compress(profile)))
    if colour == PALETTE:
        parts.append(chunk(b"PLTE", bytes(value for index in range(2**depth) for value in _entry(index, depth))))
    if transparency is not None:
        parts.append(chunk(b"tRNS", transparency))
    if orientation is not None:
        parts.append(chunk(b"eXIf", exif(orientation)))
    return b"".join([b"\x89PNG\r\n\x1a\n", *parts, extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])


def png_of(size: tuple[int, int], depth: int, colour: int, parts: Iterable[bytes], rows: bytes) -> bytes:
    """A PNG of these chunks and rows."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))
    return b"".join([b"\x89PNG\r\n\x1a\n", head, *parts, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])


def _packed(line: tuple[int, ...], depth: int) -> bytes:
    if depth == 16:
        return struct.pack(f">{len(line)}H", *line)
    if depth == 8:
        return bytes(line)
    bits = "".join(f"{value:0{depth}b}" for value in line)
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8))


def _entry(index: int, depth: int) -> tuple[int, int, int]:
    level = index * 255 // (2**depth - 1)
    return level, 255 - level, 64 + level // 2


def image(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """The scene as a Pillow image."""
    colour = {"L": GREY, "LA": GREY_ALPHA, "RGB": RGB, "RGBA": RGB_ALPHA}[mode]
    return Image.frombytes(mode, size, b"".join(bytes(line) for line in samples(8, colour, size)))


def jpeg(
    mode: str = "RGB", *, profile: bytes | None = None, orientation: int | None = None, **options: object
) -> bytes:
    return saved(image("RGB").convert(mode), "JPEG", profile, orientation, **({"quality": 92} | options))


def webp(
    mode: str = "RGB", *, profile: bytes | None = None, orientation: int | None = None, **options: object
) -> bytes:
    return saved(image(mode), "WEBP", profile, orientation, **({"quality": 92} | options))


def gif(mode: str = "RGB") -> bytes:
    return saved(image(mode).quantize(64, Image.Quantize.FASTOCTREE), "GIF")


def saved(
    picture: Image.Image, name: str, profile: bytes | None = None, orientation: int | None = None, **options: object
) -> bytes:
    if profile is not None:
        options["icc_profile"] = profile
    if orientation is not None:
        options["exif"] = b"Exif\0\0" + exif(orientation)
    file = BytesIO()
    picture.save(file, name, **options)
    return file.getvalue()


# An Exif block without entries.
EMPTY_EXIF = struct.pack(">2sHIHI", b"MM", 42, 8, 0, 0)


def exif(orientation: int) -> bytes:
    return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def without_adobe(data: bytes) -> bytes:
    """A JPEG without its APP14 segment."""
    start = data.index(b"\xff\xee")
    (length,) = struct.unpack_from(">H", data, start + 2)
    return data[:start] + data[start + 2 + length :]
