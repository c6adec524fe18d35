"""Warnings about a picture that is exported nevertheless: it is an animation, or not of the requested aspect ratio."""

from collections.abc import Iterator

from service.imaging.containers.container import Container
from service.imaging.frame import Size
from service.imaging.plan import ExportPlan, ExportWarning, Fit

# Ratios that differ by no more per cent are the same: Gemini's models round their sizes by as much.
_RATIO_TOLERANCE = 3


def picture_warnings(container: Container, plan: ExportPlan, size: Size) -> Iterator[ExportWarning]:
    """The warnings about a picture that is exported in `size`; a base has none."""
    if container.frames > 1 and plan.animate == "first":
        detail = f"the picture is an animation of {container.frames:,} frames: the first was exported"
        yield ExportWarning("animation_ignored", detail)
    picture, ratio = container.upright_size, plan.frame.ratio
    if ratio and _differ(picture, ratio):
        yield ExportWarning("ratio_ignored", _ratio_ignored(picture, size, plan.fit))


def _differ(picture: Size, ratio: Size) -> bool:
    """Whether the picture's ratio differs from the asked one by more than _RATIO_TOLERANCE per cent."""
    own, asked = picture[0] * ratio[1], picture[1] * ratio[0]
    return 100 * abs(own - asked) > _RATIO_TOLERANCE * asked


def _ratio_ignored(picture: Size, size: Size, fit: Fit) -> str:
    how = {
        "cover": f"{_cut(picture, size)} of it was cut",
        "contain": "0 % was cut, it was padded",
        "stretch": "0 % was cut, it was stretched",
    }[fit]
    return f"the picture came as {_pixels(picture)}, not in the asked ratio; exported as {_pixels(size)}, {how}"


def _cut(picture: Size, size: Size) -> str:
    """The share of the picture's area that a crop to the ratio of `size` cuts off, for people."""
    kept, whole = sorted((picture[0] * size[1], picture[1] * size[0]))
    percent = (200 * (whole - kept) + whole) // (2 * whole)
    return "less than 1 %" if percent == 0 and kept < whole else f"{percent} %"


def _pixels(size: Size) -> str:
    return f"{size[0]} x {size[1]}"
