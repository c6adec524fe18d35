"""An estimate of the CPU time of an export, by which the queue lets cheap exports overtake: an order of magnitude."""

from collections.abc import Iterable

from service.imaging.errors import ImpossibleFrame
from service.imaging.formats import AvifEncoding, Encoding, GifEncoding, JpegEncoding, PngEncoding, WebpEncoding
from service.imaging.frame import Size
from service.imaging.plan import ExportPlan

# An animation of more pixels, all its frames together, takes a worker many seconds.
LARGE_PIXELS = 64_000_000
# CPU time of any export, and of each pixel decoded.
_BASE_SECONDS = 0.005
_SECONDS_PER_PIXEL_DECODED = 2e-8
# A byte budget takes about so many encodes.
_ENCODES_IN_BUDGET = 4


def is_large(plan: ExportPlan, picture: Size, frames: int) -> bool:
    """Whether it is an animation of more than LARGE_PIXELS, as it is stored or as it is exported."""
    try:
        sizes = picture, plan.frame.size(picture)
    except ImpossibleFrame:
        return False
    return frames > 1 and any(frames * width * height > LARGE_PIXELS for width, height in sizes)


def export_seconds(plan: ExportPlan, encodings: Iterable[Encoding], sizes: Iterable[Size], frames: int = 1) -> float:
    """CPU seconds of an export; `sizes` are that of the picture and those of the other pictures to decode."""
    picture, *others = sizes
    try:
        width, height = plan.frame.size(picture)
    except ImpossibleFrame:
        return _BASE_SECONDS
    read = sum(width * height for width, height in (*frames * (picture,), *others))
    each = sum(_seconds_per_pixel(encoding) * _encodes(plan, encoding, frames) for encoding in encodings)
    return _BASE_SECONDS + read * _SECONDS_PER_PIXEL_DECODED + width * height * each


def _encodes(plan: ExportPlan, encoding: Encoding, frames: int) -> int:
    if plan.budgets.of(encoding.format):
        return _ENCODES_IN_BUDGET
    return 1 if isinstance(encoding, JpegEncoding) else frames


def _seconds_per_pixel(encoding: Encoding) -> float:
    """CPU seconds of each pixel encoded, measured on photographs."""
    match encoding:
        case PngEncoding():
            return 1e-7
        case JpegEncoding():
            return 1e-8
        case WebpEncoding():
            return 5e-7 if encoding.lossless else 5e-8
        case GifEncoding():
            return 1e-7
        case AvifEncoding():
            return 1e-7 if encoding.speed >= 9 else 1e-6
