"""Focus: where `cover` crops a picture, around a point or where the picture has most detail."""

from itertools import accumulate, pairwise

from PIL import Image, ImageChops, ImageFilter

from service.imaging.frame import Frame, Size
from service.imaging.plan import WHOLE_SHARE, Focus

# Left, top, right and bottom edge, between pixels.
CropBox = tuple[float, float, float, float]
Crop = Focus | CropBox

# Detail is what a blur takes away from a thumbnail.
_THUMBNAIL = Frame(longest=192)
_BLUR = ImageFilter.GaussianBlur(2)
# Differences of so few levels are gradients, or the noise of JPEG.
_NOISE = 4


def cover_box(image: Image.Image, size: Size, crop: Crop) -> CropBox:
    """The largest box (left, top, right, bottom) of the ratio of `size`, around the focus as far as the edges allow.

    A box that was found before, for another frame of an animation, stays as it is.
    """
    match crop:
        case (_, _, _, _):
            return crop
    width = min(image.width, image.height * size[0] / size[1])
    height = min(image.height, image.width * size[1] / size[0])
    x, y = _centre_of_detail(image, width, height) if crop == "auto" else _point(image, crop)
    left = min(max(x - width / 2, 0), image.width - width)
    top = min(max(y - height / 2, 0), image.height - height)
    return left, top, min(left + width, image.width), min(top + height, image.height)


def _point(image: Image.Image, focus: tuple[int, int] | None) -> tuple[float, float]:
    x, y = focus or (WHOLE_SHARE // 2, WHOLE_SHARE // 2)
    return image.width * x / WHOLE_SHARE, image.height * y / WHOLE_SHARE


def _centre_of_detail(image: Image.Image, width: float, height: float) -> tuple[float, float]:
    """The centre of the box of this size, as wide or as high as the image, that has most detail."""
    centre = image.width / 2, image.height / 2
    if image.width - width >= 1:
        return _most_detailed(_columns(_detail(image)), image.width, width), centre[1]
    if image.height - height >= 1:
        return centre[0], _most_detailed(_rows(_detail(image)), image.height, height)
    return centre


def _detail(image: Image.Image) -> Image.Image:
    """An L image of how much the luma, and the opacity, of a thumbnail differ from their surroundings."""
    small = image.resize(_THUMBNAIL.size(image.size), Image.Resampling.BILINEAR, reducing_gap=1.0)
    small = small.convert("LA").convert("La") if image.mode == "RGBA" else small.convert("L")
    first, *second = ImageChops.difference(small, small.filter(_BLUR)).split()
    detail = ImageChops.add(first, second[0]) if second else first
    return detail.point([max(0, level - _NOISE) for level in range(256)])


def _columns(detail: Image.Image) -> list[int]:
    levels = detail.tobytes()
    return [sum(levels[x :: detail.width]) for x in range(detail.width)]


def _rows(detail: Image.Image) -> list[int]:
    return _columns(detail.transpose(Image.Transpose.TRANSPOSE))


def _most_detailed(sums: list[int], whole: int, part: float) -> float:
    """The centre of the part with the largest sum under a triangular weight, ties nearest the middle of the whole."""
    half = max(1, round(len(sums) * part / whole / 2))
    last = len(sums) - 2 * half
    if last <= 0:
        return whole / 2
    # Weighted sums for all offsets in one pass: a triangle is the second difference of a double cumulative sum.
    integral = list(accumulate(map(sum, pairwise(accumulate(sums, initial=0))), initial=0))
    weights = [integral[at] - 2 * integral[at + half] + integral[at + 2 * half] for at in range(last + 1)]
    best = max(range(last + 1), key=lambda at: (weights[at], -abs(2 * at - last)))
    return part / 2 + (whole - part) * best / last
