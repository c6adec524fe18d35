"""Animations written block by block, and composed pixel by pixel as the specifications say."""

import random
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from PIL import Image

from tests.imaging import pictures
from tests.imaging.pictures import chunk

Pixel = tuple[int, int, int, int]
Disposal = Literal["keep", "background", "previous"]
CLEAR: Pixel = (0, 0, 0, 0)
DISPOSALS: tuple[Disposal, ...] = ("keep", "background", "previous")


@dataclass(frozen=True)
class Layer:
    """An image in RGBA, where it is drawn, and how."""

    image: Image.Image
    left: int = 0
    top: int = 0
    duration: int = 70
    disposal: Disposal = "keep"
    blends: bool = True


@dataclass(frozen=True)
class Film:
    canvas: tuple[int, int]
    layers: Sequence[Layer] = field(default_factory=tuple)
    plays: int = 0


def plain(size: tuple[int, int], colour: str | Pixel) -> Image.Image:
    return Image.new("RGBA", size, colour)


def noise(size: tuple[int, int], numbers: random.Random, levels: Sequence[int]) -> Image.Image:
    """Few colours, and alpha of the given levels."""
    colours = [tuple(numbers.choices(range(256), k=3)) for _ in range(40)]
    pixels = (bytes((*numbers.choice(colours), numbers.choice(levels))) for _ in range(size[0] * size[1]))
    return Image.frombytes("RGBA", size, b"".join(pixels))


def random_film(
    seed: int, *, beyond: bool = False, soft: bool = True, even: bool = False, previous: bool = True
) -> Film:
    """Layers of any place, disposal and blend.

    beyond: they may leave the canvas; soft: they have alpha between none and all; even: their offsets are even;
    previous: the canvas may be restored.
    """
    numbers = random.Random(seed)
    canvas = numbers.randrange(6, 20), numbers.randrange(6, 20)
    layers = []
    for number in range(8):
        size = (numbers.randrange(1, canvas[0] + 1), numbers.randrange(1, canvas[1] + 1))
        if number == 0 or numbers.random() < 0.2:
            size = canvas
        room = (canvas[0], canvas[1]) if beyond else (canvas[0] - size[0] + 1, canvas[1] - size[1] + 1)
        left, top = (numbers.randrange(each) for each in room)
        if number == 0:
            left = top = 0
        levels = numbers.choice(((255,), (0, 255), (0, 40, 128, 200, 255) if soft else (0, 255)))
        layers.append(
            Layer(
                noise(size, numbers, levels),
                left - left % 2 if even else left,
                top - top % 2 if even else top,
                numbers.choice((0, 10, 20, 70, 120, 1000)),
                numbers.choice(DISPOSALS[: 3 if previous else 2]),
                numbers.random() < 0.6 or not soft,
            )
        )
    return Film(canvas, layers, numbers.choice((0, 1, 2, 7)))


def reference(film: Film) -> list[Image.Image]:
    """Each frame, by the words of the specifications: transparent at first; draw, show, dispose."""
    width, height = film.canvas
    canvas: list[Pixel] = [(0, 0, 0, 0)] * (width * height)
    frames = []
    for layer in film.layers:
        before = list(canvas)
        places = [
            (x, y, (layer.top + y) * width + layer.left + x)
            for y in range(layer.image.height)
            for x in range(layer.image.width)
            if layer.left + x < width and layer.top + y < height
        ]
        for x, y, at in places:
            pixel: Pixel = layer.image.getpixel((x, y))  # type: ignore[assignment]  # a tuple, in RGBA
            canvas[at] = _over(pixel, canvas[at]) if layer.blends else pixel
        frames.append(Image.frombytes("RGBA", film.canvas, b"".join(map(bytes, canvas))))
        if layer.disposal == "background":
            for _, _, at in places:
                canvas[at] = (0, 0, 0, 0)
        elif layer.disposal == "previous":
            canvas = before
    return frames


def _over(above: Pixel, below: Pixel) -> Pixel:
    """The OVER operator of the PNG specification, 13.16, without premultiplication."""
    weight, rest = above[3] * 255, below[3] * (255 - above[3])
    if weight + rest == 0:
        return 0, 0, 0, 0
    red, green, blue = (
        round((weight * one + rest * other) / (weight + rest)) for one, other in zip(above[:3], below[:3], strict=True)
    )
    return red, green, blue, round((weight + rest) / 255)


def worst(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of two images, by premultiplied levels: what is transparent has no colour."""
    assert one.size == other.size
    return max(
        max(abs(a - b) for a, b in zip(_premultiplied(p), _premultiplied(q), strict=True))
        for p, q in zip(_pixels(one), _pixels(other), strict=True)
    )


def _pixels(image: Image.Image) -> Iterable[Pixel]:
    data = image.convert("RGBA").tobytes()
    return ((data[at], data[at + 1], data[at + 2], data[at + 3]) for at in range(0, len(data), 4))


def _premultiplied(pixel: Pixel) -> Pixel:
    red, green, blue, alpha = pixel
    return round(red * alpha / 255), round(green * alpha / 255), round(blue * alpha / 255), alpha


# GIF


def gif(film: Film, *, screen: tuple[int, int] | None = None, interlaced: bool = False, trailer: bytes = b";") -> bytes:
    """Each layer has a table of its own; pixels of alpha 0 are transparent."""
    head = struct.pack("<6sHHBBB", b"GIF89a", *(screen or film.canvas), 0, 0, 0)
    loops = b"" if film.plays == 1 else gif_loops(max(0, film.plays - 1))
    return head + loops + b"".join(gif_frame(layer, interlaced=interlaced) for layer in film.layers) + trailer


def gif_loops(count: int, name: bytes = b"NETSCAPE2.0") -> bytes:
    return b"!\xff\x0b" + name + struct.pack("<BBHB", 3, 1, count, 0)


def gif_frame(layer: Layer, *, interlaced: bool = False) -> bytes:
    pixels = list(_pixels(layer.image))
    colours = sorted({pixel[:3] for pixel in pixels if pixel[3]})
    key = len(colours)
    assert key < 256
    indices = [colours.index(pixel[:3]) if pixel[3] else key for pixel in pixels]
    table = b"".join(map(bytes, colours)).ljust(768, b"\0")
    code = {"keep": 1, "background": 2, "previous": 3}[layer.disposal]
    control = b"!\xf9\x04" + struct.pack("<BHBB", code << 2 | 1, layer.duration // 10, key, 0)
    if interlaced:
        indices = _interlaced(indices, layer.image.width)
    place = struct.pack("<HHHH", layer.left, layer.top, *layer.image.size)
    return control + b"," + place + bytes((0x87 | 0x40 * interlaced,)) + table + lzw(indices)


def _interlaced(indices: list[int], width: int) -> list[int]:
    rows = [indices[at : at + width] for at in range(0, len(indices), width)]
    passes = (range(first, len(rows), step) for first, step in ((0, 8), (4, 8), (2, 4), (1, 2)))
    return [index for each in passes for row in each for index in rows[row]]


def lzw(indices: Sequence[int], *, size: int = 8, end: bool = True) -> bytes:
    """The image data of these indices, without compression: the table is cleared before codes get longer."""
    codes: list[int] = []
    for number, index in enumerate(indices):
        if number % (2**size - 2) == 0:
            codes.append(2**size)
        codes.append(index)
    bits = sum(code << (size + 1) * place for place, code in enumerate([*codes, 2**size + 1] if end else codes))
    data = bits.to_bytes(((size + 1) * (len(codes) + end) + 7) // 8, "little")
    return bytes((size,)) + b"".join(bytes((len(each),)) + each for each in _pieces(data)) + b"\0"


def lzw_bomb(codes: int) -> bytes:
    """Image data of zeros, in which each code stands for one pixel more than the code before."""
    bits, width, value = 3, 3, 4
    for number in range(codes):
        value |= (number + 5 if number else 0) << bits
        bits += width
        # The table has had six entries, and one more for each code but the first.
        width = min(12, (number + 6).bit_length())
    data = value.to_bytes((bits + 7) // 8, "little")
    return b"\2" + b"".join(bytes((len(each),)) + each for each in _pieces(data)) + b"\0"


def _pieces(data: bytes) -> list[bytes]:
    return [data[at : at + 255] for at in range(0, len(data), 255)]


# PNG


def apng(film: Film, *, default: Image.Image | None = None, counted: int | None = None, parts: bytes = b"") -> bytes:
    """Frames in 8-bit RGBA; `default` is a default image that is no frame."""
    body = [parts, chunk(b"acTL", struct.pack(">II", len(film.layers) if counted is None else counted, film.plays))]
    if default:
        body.append(chunk(b"IDAT", png_rows(default)))
    sequence = 0
    for number, layer in enumerate(film.layers):
        body.append(fctl(sequence, layer))
        sequence += 1
        if number == 0 and not default:
            body.append(chunk(b"IDAT", png_rows(layer.image)))
        else:
            body.append(chunk(b"fdAT", sequence.to_bytes(4) + png_rows(layer.image)))
            sequence += 1
    return png_file(film.canvas, body)


def twice(still: bytes) -> bytes:
    """An APNG of two frames, both of which are the whole PNG `still`, the second after the canvas was cleared."""
    start = still.index(b"IDAT") - 4
    length = int.from_bytes(still[start : start + 4])
    pixels = still[start + 8 : start + 8 + length]
    layer = Layer(plain((int.from_bytes(still[16:20]), int.from_bytes(still[20:24])), CLEAR), disposal="background")
    frames = chunk(b"acTL", bytes((0, 0, 0, 2, 0, 0, 0, 0))) + fctl(0, layer), fctl(1, layer)
    return b"".join(
        (still[:start], frames[0], chunk(b"IDAT", pixels), frames[1], chunk(b"fdAT", b"\0\0\0\2" + pixels), still[-12:])
    )


def png_file(size: tuple[int, int], parts: Iterable[bytes], depth: int = 8, colour: int = pictures.RGB_ALPHA) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))
    return b"".join((b"\x89PNG\r\n\x1a\n", head, *parts, chunk(b"IEND", b"")))


def fctl(sequence: int, layer: Layer, delay: tuple[int, int] | None = None) -> bytes:
    place = (*layer.image.size, layer.left, layer.top)
    disposal = DISPOSALS.index(layer.disposal)
    return chunk(
        b"fcTL", struct.pack(">IIIIIHHBB", sequence, *place, *(delay or (layer.duration, 1000)), disposal, layer.blends)
    )


def png_rows(image: Image.Image) -> bytes:
    data, length = image.tobytes(), len(image.tobytes()) // image.height
    return zlib.compress(b"".join(b"\0" + data[at : at + length] for at in range(0, len(data), length)))


# WebP


def webp(film: Film, *, parts: bytes = b"", flags: int = 0x12) -> bytes:
    """Lossless frames."""
    sides = b"".join((side - 1).to_bytes(3, "little") for side in film.canvas)
    body = [riff(b"VP8X", struct.pack("<B3x6s", flags, sides)), parts]
    body.append(riff(b"ANIM", struct.pack("<IH", 0xFFFFFFFF, film.plays)))
    body += [anmf(layer) for layer in film.layers]
    return riff(b"RIFF", b"WEBP" + b"".join(body))


def anmf(layer: Layer) -> bytes:
    still = pictures.saved(layer.image, "WEBP", lossless=True, exact=True)
    at = 12
    if still[12:16] == b"VP8X":
        at += 18
    fields = (layer.left // 2, layer.top // 2, layer.image.width - 1, layer.image.height - 1, layer.duration)
    flags = (layer.disposal == "background") | 2 * (not layer.blends)
    header = b"".join(each.to_bytes(3, "little") for each in fields) + bytes((flags,))
    return riff(b"ANMF", header + still[at:])


def riff(kind: bytes, body: bytes) -> bytes:
    return kind + len(body).to_bytes(4, "little") + body + bytes(len(body) % 2)
