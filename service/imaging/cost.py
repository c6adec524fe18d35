"""An estimate of what an export costs, from the sizes of its pictures: by it the queue keeps small exports quick."""

from collections.abc import Iterable

from service.imaging.errors import ImpossibleFrame
from service.imaging.frame import Size
from service.imaging.plan import ExportPlan

# Of one core, for any picture, and for each pixel that is read, and written in three formats. Only the order of
# magnitude matters.
_SECONDS_AT_LEAST = 0.005
_SECONDS_A_PIXEL_READ = 2e-8
_SECONDS_A_PIXEL_WRITTEN = 1e-7


def export_seconds(plan: ExportPlan, sizes: Iterable[Size]) -> float:
    """Seconds of a worker's CPU for a picture that is exported; `sizes` are its own and those of others to decode."""
    picture, *others = sizes
    try:
        width, height = plan.frame.size(picture)
    except ImpossibleFrame:
        return _SECONDS_AT_LEAST
    read = sum(width * height for width, height in (picture, *others))
    return _SECONDS_AT_LEAST + read * _SECONDS_A_PIXEL_READ + width * height * _SECONDS_A_PIXEL_WRITTEN
