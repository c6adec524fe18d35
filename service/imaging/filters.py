"""PNG's row filters, computed with Pillow's image arithmetic, and the choice of the cheapest for each row.

The filters are those of https://www.w3.org/TR/png-3/#9Filters. A strip is an 8-bit image of the packed bytes of its
rows, with the row above as its first. `distance` is how many bytes lie between a pixel and the one to its left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2

from PIL import Image, ImageChops

NONE, SUB, UP, AVERAGE, PAETH = range(5)
LINEAR = (SUB, UP, AVERAGE)
ALL = (*LINEAR, PAETH)

UNSEEN = 8  # added to every count of the histogram, so that no value is impossible (Laplace smoothing)
# The price of each byte value before any histogram is known, on the scale of `prices`: nothing for zero, else two bits
# and the bits of its magnitude. Choosing by it makes smaller files than the usual sum of magnitudes.
GUESS = [0] + [round(28 * (2 + log2(1 + min(value, 256 - value)))) for value in range(1, 256)]


@dataclass(frozen=True, slots=True)
class Filtered:
    """The scanlines of a strip after each of some filters, and the cost of each scanline: one byte a row."""

    scanlines: dict[int, bytes]
    costs: dict[int, bytes]
    length: int

    def cheapest(self, filters: Sequence[int]) -> bytes:
        """Every row with the filter of `filters` that costs least, the first of equals."""
        if len(filters) == 1:
            return self.scanlines[filters[0]]
        scanlines = [memoryview(self.scanlines[number]) for number in filters]
        costs = zip(*(self.costs[number] for number in filters), strict=True)
        choices = (of_row.index(min(of_row)) for of_row in costs)
        starts = range(0, len(scanlines[0]), self.length)
        return b"".join(
            scanlines[choice][start : start + self.length] for choice, start in zip(choices, starts, strict=True)
        )


def filter_rows(strip: Image.Image, distance: int, filters: Sequence[int], price: list[int]) -> Filtered:
    """Apply each of `filters` to all rows but the first; `price` has the cost of each byte value."""
    scanlines = {number: residuals(strip, distance, number).tobytes() for number in filters}
    length, rows = strip.width + 1, strip.height - 1
    costs = {number: cost(scanlines[number], length, rows, price) for number in filters} if len(filters) > 1 else {}
    return Filtered(scanlines, costs, length)


def cost(scanlines: bytes, length: int, rows: int, price: list[int]) -> bytes:
    """The mean price of a byte in each row, from every other byte."""
    sample = Image.frombytes("L", (length // 2, rows), scanlines, "raw", "L;16", length, 1)
    return sample.point(price).reduce((sample.width, 1)).tobytes()


def prices(scanlines: bytes) -> list[int]:
    """The entropy of each byte value, by the histogram of `scanlines`, in twentieths of a bit, at most 255.

    A residual and its negative are taken to be equally likely.
    """
    counts = Image.frombuffer("L", (len(scanlines), 1), scanlines).histogram()
    total = len(scanlines) + 256 * UNSEEN
    half = [min(255, round(20 * log2(total / (UNSEEN + (counts[value] + counts[-value]) / 2)))) for value in range(129)]
    return half + half[127:0:-1]


def residuals(strip: Image.Image, distance: int, number: int) -> Image.Image:
    """The scanlines of filter `number`: all rows of `strip` but the first, each after the filter's number."""
    width, height = strip.size

    def shifted(right: int, down: int) -> Image.Image:
        return strip.crop((-1 - right, 1 - down, width - right, height - down))

    original, left, above = shifted(0, 0), shifted(distance, 0), shifted(0, 1)
    if number == NONE:
        scanlines = original
    elif number == SUB:
        scanlines = ImageChops.subtract_modulo(original, left)
    elif number == UP:
        scanlines = ImageChops.subtract_modulo(original, above)
    elif number == AVERAGE:
        scanlines = ImageChops.subtract_modulo(original, Image.blend(left, above, 0.5))
    else:
        scanlines = ImageChops.subtract_modulo(original, paeth(left, above, shifted(distance, 1)))
    scanlines.paste(number, (0, 0, 1, scanlines.height))
    return scanlines


def paeth(left: Image.Image, above: Image.Image, corner: Image.Image) -> Image.Image:
    """The Paeth predictor: of the three neighbours, the one nearest to left + above - corner.

    With the corner clamped between the other two, that is the one of these two at least twice as far from it as the
    other; if neither is, it is the corner.
    """
    low, whole = ImageChops.darker(left, above), ImageChops.difference(left, above)
    high = ImageChops.add_modulo(low, whole)
    between = ImageChops.darker(ImageChops.lighter(corner, low), high)
    step = ImageChops.subtract_modulo(between, low)
    third = whole.point(THIRD)
    not_low = ImageChops.subtract_modulo(third, ImageChops.subtract_modulo(high, between)).point(OVER_THIRD)
    is_high = ImageChops.subtract_modulo(third, step).point(IN_THIRD)
    step = ImageChops.lighter(ImageChops.darker(step, not_low), ImageChops.darker(whole, is_high))
    return ImageChops.add_modulo(low, step)


THIRD = [value // 3 for value in range(256)]
# Masks over third - distance: at most 85 within the third, and below zero, from 86 modulo 256, outside.
IN_THIRD = [255] * 86 + [0] * 170
OVER_THIRD = [0] * 86 + [255] * 170
