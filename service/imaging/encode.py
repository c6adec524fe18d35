"""Encode: a finished image becomes the bytes of a file, tagged sRGB and carrying nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from threading import Lock

from PIL import Image, ImageFile

from service.imaging.formats import Encoding, JpegEncoding, PngEncoding, WebpEncoding
from service.imaging.normalize import Colour, flatten
from service.imaging.png import encode_png
from service.imaging.profiles import srgb

# Up to here a JPEG's codes fit the picture: some 3 % fewer bytes for 3 ms a megapixel, and for 3 bytes a pixel.
FITTED_PIXELS = 1 << 24

_buffer_lock = Lock()


def encode(image: Image.Image, encoding: Encoding, matte: Colour) -> bytes:
    """An RGB or RGBA image as a file; JPEG, which knows no transparency, shows it over `matte`."""
    match encoding:
        case PngEncoding():
            return encode_png(image, encoding.compression, srgb(), thorough=encoding.thorough, palette=encoding.palette)
        case JpegEncoding():
            return _jpeg(flatten(image, matte), encoding)
        case WebpEncoding():
            return _webp(image, encoding)


def _jpeg(image: Image.Image, encoding: JpegEncoding) -> bytes:
    file = BytesIO()
    fitted = image.width * image.height <= FITTED_PIXELS
    with _whole_jpeg_buffer(image) if fitted or encoding.progressive else nullcontext():
        image.save(
            file,
            "JPEG",
            quality=encoding.quality,
            optimize=fitted,
            progressive=encoding.progressive,
            subsampling=encoding.subsampling,
            icc_profile=srgb(),
        )
    return file.getvalue()


@contextmanager
def _whole_jpeg_buffer(image: Image.Image) -> Iterator[None]:
    """Let Pillow's buffer hold all of the picture's JPEG, as libjpeg wants it after a pass over the whole picture.

    Pillow makes room for one byte a pixel, or two; noise at 4:4:4 takes up to 3.2 (seen at quality 100), and more in
    narrow pictures, whose blocks reach beyond the edge.
    """
    with _buffer_lock:
        before, ImageFile.MAXBLOCK = ImageFile.MAXBLOCK, 4 * (image.width + 15) * (image.height + 15) + 65_536
        try:
            yield
        finally:
            ImageFile.MAXBLOCK = before


def _webp(image: Image.Image, encoding: WebpEncoding) -> bytes:
    file = BytesIO()
    image.save(
        file,
        "WEBP",
        quality=encoding.quality,
        lossless=encoding.lossless,
        method=encoding.method,
        exact=encoding.lossless,
        icc_profile=srgb(),
    )
    return file.getvalue()
