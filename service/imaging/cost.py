"""An estimate of the CPU time of an export, from the sizes of its pictures; the queue lets cheap exports overtake."""

from collections.abc import Iterable

from service.imaging.errors import ImpossibleFrame
from service.imaging.frame import Size
from service.imaging.plan import ExportPlan

# CPU time of any export, of each pixel decoded, and of each pixel encoded in three formats. Only the order of magnitude
# matters.
_BASE_SECONDS = 0.005
_SECONDS_PER_PIXEL_DECODED = 2e-8
_SECONDS_PER_PIXEL_ENCODED = 1e-7


def export_seconds(plan: ExportPlan, sizes: Iterable[Size]) -> float:
    """CPU seconds of an export; `sizes` are that of the picture and those of the other pictures to decode."""
    picture, *others = sizes
    try:
        width, height = plan.frame.size(picture)
    except ImpossibleFrame:
        return _BASE_SECONDS
    read = sum(width * height for width, height in (picture, *others))
    return _BASE_SECONDS + read * _SECONDS_PER_PIXEL_DECODED + width * height * _SECONDS_PER_PIXEL_ENCODED
