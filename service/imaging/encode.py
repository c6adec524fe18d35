"""Encode: a finished image becomes the bytes of a file, tagged sRGB and carrying nothing else."""

from io import BytesIO

from PIL import Image

from service.imaging.normalize import Colour, flatten
from service.imaging.plan import Encoding, JpegEncoding, PngEncoding, WebpEncoding
from service.imaging.png import encode_png
from service.imaging.profiles import srgb


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
    image.save(
        file,
        "JPEG",
        quality=encoding.quality,
        progressive=encoding.progressive,
        subsampling=encoding.subsampling,
        icc_profile=srgb(),
    )
    return file.getvalue()


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
