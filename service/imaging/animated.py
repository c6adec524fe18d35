"""Encode an animation: the file of its finished frames, tagged and marked like that of a still."""

from collections.abc import Sequence
from io import BytesIO

from PIL import Image

from service.imaging.apng import encode_apng
from service.imaging.avif import encode_avif
from service.imaging.encode import avif_options, encode, webp_options
from service.imaging.formats import AvifEncoding, Encoding, GifEncoding, JpegEncoding, PngEncoding, WebpEncoding
from service.imaging.gif import encode_gif
from service.imaging.normalize import Colour
from service.imaging.profiles import srgb
from service.imaging.provenance import Mark, packet
from service.imaging.timing import Timing
from service.imaging.webp import encode_webp


def encode_animation(
    frames: Sequence[Image.Image], timing: Timing, encoding: Encoding, matte: Colour, mark: Mark | None = None
) -> bytes:
    """RGB or RGBA frames of one size as an animated file, with an XMP packet if it has a mark; one frame: a still.

    Equal successive frames may become one, with the sum of their durations. JPEG has the first frame alone, on `matte`.
    AVIF repeats for ever, whatever the timing says.
    """
    if len(frames) == 1:
        return encode(frames[0], encoding, matte, mark)
    xmp = packet(mark) if mark else b""
    match encoding:
        case PngEncoding():
            return encode_apng(frames, timing, encoding, xmp)
        case GifEncoding():
            return encode_gif(frames, timing, xmp)
        case WebpEncoding():
            return _webp(frames, timing, encoding, xmp)
        case AvifEncoding():
            return encode_avif(frames, timing.durations, avif_options(encoding, xmp))
        case JpegEncoding():
            return encode(frames[0], encoding, matte, mark)


def _webp(frames: Sequence[Image.Image], timing: Timing, encoding: WebpEncoding, xmp: bytes) -> bytes:
    def still(image: Image.Image) -> bytes:
        file = BytesIO()
        image.save(file, "WEBP", **webp_options(encoding))
        return file.getvalue()

    return encode_webp(frames, timing, still, srgb(), xmp)
