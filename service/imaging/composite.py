"""Composite: the exact weighted mean of a picture and its base."""

from bisect import bisect_left
from functools import lru_cache
from typing import NamedTuple

from PIL import Image, ImageChops

from service.imaging.plan import WHOLE_SHARE

# Few enough rows for the intermediate images to stay in the processor's cache.
_ROWS = 64


def composite(picture: Image.Image, base: Image.Image, share: int) -> Image.Image:
    """Blend two RGB images of one size; `share`, in ten-thousandths, is the picture's part.

    Each channel is (share * picture + (10000 - share) * base) / 10000, rounded half up, for every share and pair:
    Image.blend truncates, and its floats could not tell a half from a little less.
    """
    tables = _tables(share)
    blended = Image.new("RGB", picture.size)
    for top in range(0, picture.height, _ROWS):
        rows = (0, top, picture.width, min(top + _ROWS, picture.height))
        blended.paste(_blend(picture.crop(rows), base.crop(rows), tables), rows)
    return blended


class _Tables(NamedTuple):
    """The terms of the mean, by level of the picture and of the base: whole levels, and a fraction that may carry."""

    picture_whole: list[int]
    picture_part: list[int]
    base_whole: list[int]
    base_part: list[int]


def _blend(picture: Image.Image, base: Image.Image, tables: _Tables) -> Image.Image:
    whole = ImageChops.add_modulo(picture.point(tables.picture_whole), base.point(tables.base_whole))
    # Divided by 256 and truncated, the sum of the fractions is 1 exactly when the remainders reach a whole level.
    carry = ImageChops.add(picture.point(tables.picture_part), base.point(tables.base_part), 256)
    return ImageChops.add_modulo(whole, carry)


@lru_cache(maxsize=4)
def _tables(share: int) -> _Tables:
    """Split share * p = 10000 * whole + remainder, and the base's term plus the rounding half likewise.

    The mean is the sum of the whole levels, and one more if the remainders reach 10000. The picture has at most 256
    different remainders, so 8 bits hold the rank of each. For the base, 8 bits hold how many of these ranks are too low
    to reach 10000 with its remainder. Rank 0, of remainder 0, is always too low.
    """
    picture = [divmod(share * level, WHOLE_SHARE) for level in range(256)]
    base = [divmod((WHOLE_SHARE - share) * level + WHOLE_SHARE // 2, WHOLE_SHARE) for level in range(256)]
    ranks = sorted({remainder for _, remainder in picture})
    short = [bisect_left(ranks, WHOLE_SHARE - remainder) for _, remainder in base]
    return _Tables(
        picture_whole=[whole for whole, _ in picture] * 3,
        picture_part=[bisect_left(ranks, remainder) for _, remainder in picture] * 3,
        base_whole=[whole for whole, _ in base] * 3,
        base_part=[256 - count for count in short] * 3,
    )
