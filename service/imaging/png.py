"""A lossless PNG encoder: truecolour, or indexed where a picture has few colours.

The format is that of https://www.w3.org/TR/png-3/.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from service.imaging.containers.png import END, png_chunk
from service.imaging.deflate import EFFORTS, THOROUGH, Effort, deflated
from service.imaging.flat import flat_stream, is_flat
from service.imaging.indexed import Palette, exact_palette
from service.imaging.quantize import quantize

SMALL_FILE = 1 << 14  # bytes; in a smaller file a palette may cost more than it saves, so both forms are tried
STRIP_BYTES = 1 << 18  # compressed at once: enough to measure a ratio, few enough to adapt within a picture

# Mode: bits per pixel, bit depth, colour type.
PLAIN = {"1": (1, 1, 0), "L": (8, 8, 0), "LA": (16, 8, 4), "RGB": (24, 8, 2), "RGBA": (32, 8, 6)}
INDEXED = 3

SRGB = png_chunk(b"sRGB", b"\0")  # the rendering intent is perceptual, as in an ICC profile by default


@dataclass(frozen=True, slots=True)
class Form:
    """A picture in one of PNG's colour types: Pillow's `rawmode` packs its pixels, of `bits` each.

    `palette` is the bytes of its PLTE and tRNS chunks.
    """

    image: Image.Image
    rawmode: str
    bits: int
    depth: int
    colour_type: int
    palette: bytes = b""

    @property
    def distance(self) -> int:
        """How many bytes lie between a pixel and the one to its left."""
        return max(1, self.bits // 8)

    @property
    def row_bytes(self) -> int:
        return (self.image.width * self.bits + 7) // 8


def encode_png(
    image: Image.Image,
    compression: int,
    xmp: bytes = b"",
    *,
    thorough: bool = False,
    palette: bool = True,
    colors: int | None = None,
) -> bytes:
    """A picture of mode 1, L, LA, P, RGB or RGBA as PNG; `compression` from 0 (fastest) to 9 (smallest).

    Lossless and deterministic. Tagged as sRGB; `xmp` is embedded unchanged. `thorough` makes levels 8
    and 9 slower and smaller. `palette` allows an indexed PNG for at most 256 colours; `colors` makes one, and an
    RGB or RGBA picture with more colours loses some.
    """
    effort, metadata = effort_of(compression, thorough=thorough), metadata_chunks(xmp)
    plain, indexed = plain_form(image), None
    if colors:
        indexed = palette_form(quantize(plain.image, colors))
    elif palette and plain.image.mode in ("RGB", "RGBA"):
        indexed = palette_form(plain.image)
    png = written(indexed or plain, metadata, effort)
    if indexed and not colors and len(png) < SMALL_FILE:
        png = min(png, written(plain, metadata, effort), key=len)
    return png


def plain_form(image: Image.Image) -> Form:
    """Greyscale or truecolour, without a fully opaque alpha channel."""
    if image.mode == "P":
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert("RGB")
    return Form(image, image.mode, *PLAIN[image.mode])


def palette_form(image: Image.Image) -> Form | None:
    """An RGB or RGBA picture of at most 256 colours as palette indices, else None.

    Transparent colours come first in the palette, which keeps tRNS short.
    """
    palette = exact_palette([image])
    return indexed_form(image, palette) if palette else None


def indexed_form(image: Image.Image, palette: Palette) -> Form:
    """A picture as indices of a palette that has all its colours."""
    chunks = png_chunk(b"PLTE", palette.rgb)
    if palette.mode == "RGBA":
        chunks += png_chunk(b"tRNS", palette.alpha)
    depth = next(depth for depth in (1, 2, 4, 8) if len(palette.colours) <= 1 << depth)
    return Form(palette.indices(image), f"P;{depth}" if depth < 8 else "P", depth, depth, INDEXED, chunks)


def written(form: Form, metadata: bytes, effort: Effort) -> bytes:
    return preamble(form, metadata) + png_chunk(b"IDAT", compressed(form, effort)) + END


def preamble(form: Form, metadata: bytes) -> bytes:
    """All that comes before the pixels."""
    header = struct.pack(">2I5B", *form.image.size, form.depth, form.colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + metadata + form.palette


def compressed(form: Form, effort: Effort) -> bytes:
    """The scanlines as a zlib stream."""
    stream = None
    if effort.raw_levels and not form.palette and is_flat(form.image, STRIP_BYTES):
        stream = flat_stream(form.image, form.rawmode, form.row_bytes, effort.raw_levels[1])
    return stream or b"".join(deflated(strips(form), form.distance, bool(form.palette), effort))


def effort_of(compression: int, *, thorough: bool) -> Effort:
    return (THOROUGH if thorough else EFFORTS)[compression]


def metadata_chunks(xmp: bytes) -> bytes:
    """That the colours are sRGB, and an XMP packet if there is one.

    The packet is uncompressed, without a language, as the XMP specification asks.
    """
    return SRGB + (png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp) if xmp else b"")


def strips(form: Form) -> Iterator[tuple[Image.Image, bool]]:
    """Packed pixels from top to bottom as 8-bit images, each with the row above as its first; True with the last."""
    width, height = form.image.size
    step = max(1, STRIP_BYTES // form.row_bytes)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        packed = form.image.crop((0, top - 1, width, bottom)).tobytes("raw", form.rawmode)
        yield Image.frombuffer("L", (form.row_bytes, bottom - top + 1), packed), bottom == height
