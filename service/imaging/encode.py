"""Encode: the file of a finished image, tagged as sRGB, with a mark of its provenance, and no other metadata.

Each format says sRGB in its shortest way: PNG by an sRGB chunk, AVIF by code points (nclx), JPEG and WebP by a profile;
GIF has no other colours.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from threading import Lock
from typing import Any

from PIL import Image, ImageFile

from service.imaging.formats import AvifEncoding, Encoding, GifEncoding, JpegEncoding, PngEncoding, WebpEncoding
from service.imaging.gif import encode_gif
from service.imaging.normalize import Colour, flatten
from service.imaging.png import encode_png
from service.imaging.profiles import srgb
from service.imaging.provenance import Mark, packet
from service.imaging.timing import Timing

# Up to this many pixels the Huffman tables of a JPEG are optimized: 3 % fewer bytes for 3 ms a megapixel and 3 bytes of
# memory a pixel.
OPTIMIZED_PIXELS = 1 << 24

_buffer_lock = Lock()


def encode(image: Image.Image, encoding: Encoding, matte: Colour, mark: Mark | None = None) -> bytes:
    """An RGB or RGBA image as a file, with an XMP packet if it has a mark.

    JPEG has no transparency, so there the image lies on `matte`.
    """
    xmp = packet(mark) if mark else b""
    match encoding:
        case PngEncoding():
            return _png(image, encoding, xmp)
        case JpegEncoding():
            return _jpeg(flatten(image, matte), encoding, xmp)
        case WebpEncoding():
            return _webp(image, encoding, xmp)
        case AvifEncoding():
            return _avif(image, encoding, xmp)
        case GifEncoding():
            return encode_gif((image,), Timing((0,), plays=1), xmp)


def _png(image: Image.Image, encoding: PngEncoding, xmp: bytes) -> bytes:
    return encode_png(
        image,
        encoding.compression,
        xmp,
        thorough=encoding.thorough,
        palette=encoding.palette,
        colors=encoding.colors,
    )


def _jpeg(image: Image.Image, encoding: JpegEncoding, xmp: bytes) -> bytes:
    file = BytesIO()
    optimized = image.width * image.height <= OPTIMIZED_PIXELS
    with _whole_jpeg_buffer(image) if optimized or encoding.progressive else nullcontext():
        image.save(
            file,
            "JPEG",
            quality=encoding.quality,
            optimize=optimized,
            progressive=encoding.progressive,
            subsampling=encoding.subsampling,
            icc_profile=srgb(),
            xmp=xmp,
        )
    return file.getvalue()


@contextmanager
def _whole_jpeg_buffer(image: Image.Image) -> Iterator[None]:
    """Enlarge Pillow's output buffer to hold the whole JPEG, as optimized and progressive encoding require.

    Pillow allocates one or two bytes a pixel. Noise at 4:4:4 and quality 100 takes up to 3.2, and narrow pictures take
    more, because their blocks reach beyond the edge.
    """
    with _buffer_lock:
        before, ImageFile.MAXBLOCK = ImageFile.MAXBLOCK, 4 * (image.width + 15) * (image.height + 15) + 65_536
        try:
            yield
        finally:
            ImageFile.MAXBLOCK = before


def _webp(image: Image.Image, encoding: WebpEncoding, xmp: bytes) -> bytes:
    file = BytesIO()
    image.save(file, "WEBP", **webp_options(encoding), icc_profile=srgb(), xmp=xmp)
    return file.getvalue()


def webp_options(encoding: WebpEncoding) -> dict[str, Any]:
    """What Pillow's encoder is told, of a still and of each frame of an animation."""
    return {
        "quality": encoding.quality,
        "lossless": encoding.lossless,
        "method": encoding.method,
        "exact": encoding.lossless,
    }


def _avif(image: Image.Image, encoding: AvifEncoding, xmp: bytes) -> bytes:
    file = BytesIO()
    image.save(file, "AVIF", **avif_options(encoding, xmp))
    return file.getvalue()


def avif_options(encoding: AvifEncoding, xmp: bytes) -> dict[str, Any]:
    """What Pillow's encoder is told, of a still and of an animation; it writes the code points of sRGB by itself.

    One thread: the bytes depend on the number of threads. Titles and flat colours suffer without 4:4:4.
    """
    return {
        "quality": encoding.quality,
        "speed": encoding.speed,
        "subsampling": "4:4:4",
        "range": "full",
        "max_threads": 1,
        "xmp": xmp,
    }
