"""Byte budget: the best file of at most so many bytes, by a lower quality or fewer colours, then by fewer pixels."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from service.imaging.formats import Encoding, Format, PngEncoding, at_quality, colors_of, quality_of
from service.imaging.frame import Frame, Size
from service.imaging.normalize import REDUCING_GAP
from service.imaging.plan import Budget
from service.imaging.secant import Curve, Goal, Point, interpolated, search

Encode = Callable[[Image.Image, Encoding], bytes]

# The most encodes by quality or palette, that of the asked encoding included; and the most by size.
ENCODES = 8
# The lowest quality and the palettes, of a picture that keeps its size and of one that may be made smaller.
LOWEST_QUALITY, RESIZED_QUALITY = 10, 40
PALETTES, RESIZED_PALETTES = (256, 128, 64, 32, 16), (256, 128, 64)
# The longer side is never shorter.
SHORTEST = 16

# The share of the budget at which a search ends.
ENOUGH_BY_QUALITY, ENOUGH_BY_SIZE = 0.95, 0.9
# The logarithm of a file's bytes at these qualities, less that at the lowest: the mean over photographs, illustrations
# and interfaces.
QUALITIES = (10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 95, 100)
GROWTH: dict[Format, Sequence[float]] = {
    "jpeg": (0.0, 0.34, 0.54, 0.69, 0.80, 0.91, 1.05, 1.13, 1.24, 1.37, 1.58, 1.92, 2.55),
    "webp": (0.0, 0.16, 0.29, 0.40, 0.50, 0.58, 0.66, 0.70, 0.84, 1.01, 1.23, 1.56, 2.23),
    "avif": (0.0, 0.23, 0.47, 0.74, 1.06, 1.31, 1.52, 1.62, 1.74, 1.84, 2.09, 2.48, 3.34),
}
BY_QUALITY = {name: interpolated(QUALITIES, growth) for name, growth in GROWTH.items()}
# Bytes grow with about this power of the longer side, measured on the same pictures.
BY_SIDE = Curve(1.6, math.log, math.exp)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A file, and how it was encoded.

    fault   the error that ended the search for a better one within a budget
    frames  of an animation; 1 for a still
    """

    data: bytes
    pixels: Size
    encoding: Encoding
    fault: Exception | None = None
    frames: int = 1

    @property
    def quality(self) -> int | None:
        return quality_of(self.encoding)

    @property
    def colors(self) -> int | None:
        return colors_of(self.encoding)


@dataclass(frozen=True, slots=True)
class OverBudget:
    """No file fits: the smallest has `least` bytes."""

    least: int


def fitted(
    image: Image.Image, asked: Encoding, size: int, budget: Budget, encode: Encode, late: Callable[[], bool]
) -> Fitted | OverBudget:
    """The best file of `image` within its budget; in the asked encoding it takes `size` bytes, which are too many.

    The search ends with the best file so far when `late` returns True and when `encode` raises; the error is raised if
    there is none.
    """
    tries = _Tries(image, encode, late, budget.bytes, size)
    floor = _lower_quality(tries, asked, budget.may_resize)
    if budget.may_resize and tries.best is None:
        _reduce_size(tries, floor)
    return tries.best or OverBudget(tries.least)


class _Tries:
    """Encodes candidates for a file of at most `most` bytes.

    best   the last candidate that fits
    last   the bytes of the last candidate
    least  the bytes of the smallest candidate
    """

    def __init__(self, image: Image.Image, encode: Encode, late: Callable[[], bool], most: int, size: int) -> None:
        self._image = image
        self._encode = encode
        self._late = late
        self.most = most
        self.last = self.least = size
        self.longest = max(image.size)
        self.best: Fitted | None = None

    def size(self, encoding: Encoding, longest: int | None = None) -> int | None:
        """Encode the image, scaled down to a longer side; returns the bytes of the file, None to end the search."""
        if self._late():
            return None
        try:
            image = _scaled(self._image, longest) if longest else self._image
            data = self._encode(image, encoding)
        except Exception as fault:
            if self.best is None:
                raise
            self.best = replace(self.best, fault=fault)
            return None
        self.last = len(data)
        self.least = min(self.least, self.last)
        if self.last <= self.most:
            self.best = Fitted(data, image.size, encoding)
        return self.last


def _scaled(image: Image.Image, longest: int) -> Image.Image:
    size = Frame(longest=longest).size(image.size)
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=REDUCING_GAP)


def _lower_quality(tries: _Tries, asked: Encoding, may_resize: bool) -> Encoding:
    """Lower the quality, or the number of colours, until a file fits; returns the lowest such encoding."""
    if isinstance(asked, PngEncoding):
        return _reduce_palette(tries, asked, RESIZED_PALETTES if may_resize else PALETTES)
    quality, lowest = quality_of(asked), RESIZED_QUALITY if may_resize else LOWEST_QUALITY
    if quality is None or quality <= lowest:
        return asked
    goal = Goal(tries.most, ENOUGH_BY_QUALITY * tries.most, lowest, ENCODES - 1)
    search(lambda x: tries.size(at_quality(asked, x)), Point(quality, tries.last), goal, BY_QUALITY[asked.format])
    return at_quality(asked, lowest)


def _reduce_palette(tries: _Tries, asked: PngEncoding, palettes: Sequence[int]) -> Encoding:
    """Try one palette after the other: because of dithering a smaller one may take more bytes."""
    for colors in palettes:
        size = tries.size(replace(asked, colors=colors))
        if size is None or size <= tries.most:
            break
    return replace(asked, colors=palettes[-1])


def _reduce_size(tries: _Tries, encoding: Encoding) -> None:
    """Scale the image down until a file fits; the last candidate was that of the full size."""
    if tries.longest > SHORTEST:
        goal = Goal(tries.most, ENOUGH_BY_SIZE * tries.most, SHORTEST, ENCODES)
        search(lambda x: tries.size(encoding, x), Point(tries.longest, tries.last), goal, BY_SIDE)
