"""PNG's row filters by Pillow's image arithmetic, and the cheapest of them for each row.

The filters are those of https://www.w3.org/TR/png-3/#9Filters; a strip is an image of bytes whose first row is the one
above it. `distance` is how many bytes lie between a pixel and the one to its left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2

from PIL import Image, ImageChops

NONE, SUB, UP, AVERAGE, PAETH = range(5)
LINEAR = (SUB, UP, AVERAGE)
ALL = (*LINEAR, PAETH)

UNSEEN = 8  # times: so often every value counts as seen
# What a byte costs before any is known, on the scale of `prices`: next to nothing if it is zero, else two bits and
# those of its size. Choosing by it makes smaller files than choosing by the sum of sizes.
GUESS = [0] + [round(28 * (2 + log2(1 + min(value, 256 - value)))) for value in range(1, 256)]


@dataclass(frozen=True, slots=True)
class Filtered:
    """The rows of a strip after each of some filters, and what each row then costs: one byte a row."""

    lines: dict[int, bytes]
    costs: dict[int, bytes]
    length: int

    def cheapest(self, filters: Sequence[int]) -> bytes:
        """Every row after that of `filters` which leaves it cheapest, the first of equals."""
        if len(filters) == 1:
            return self.lines[filters[0]]
        lines = [memoryview(self.lines[number]) for number in filters]
        costs = zip(*(self.costs[number] for number in filters), strict=True)
        choices = (of_row.index(min(of_row)) for of_row in costs)
        starts = range(0, len(lines[0]), self.length)
        return b"".join(
            lines[choice][start : start + self.length] for choice, start in zip(choices, starts, strict=True)
        )


def filter_rows(strip: Image.Image, distance: int, filters: Sequence[int], price: list[int]) -> Filtered:
    """Filter all rows but the first; `price` is that of each byte value."""
    lines = {number: residuals(strip, distance, number).tobytes() for number in filters}
    length, rows = strip.width + 1, strip.height - 1
    costs = {number: cost(lines[number], length, rows, price) for number in filters} if len(filters) > 1 else {}
    return Filtered(lines, costs, length)


def cost(lines: bytes, length: int, rows: int, price: list[int]) -> bytes:
    """The mean price of each row, judged by every other byte."""
    sample = Image.frombytes("L", (length // 2, rows), lines, "raw", "L;16", length, 1)
    return sample.point(price).reduce((sample.width, 1)).tobytes()


def prices(lines: bytes) -> list[int]:
    """What each byte value costs to a Huffman code that fits `lines`: a twentieth of a bit is 1, the highest is 255.

    A value and its negative are as likely as one another, and none is impossible.
    """
    counts = Image.frombuffer("L", (len(lines), 1), lines).histogram()
    total = len(lines) + 256 * UNSEEN
    half = [min(255, round(20 * log2(total / (UNSEEN + (counts[value] + counts[-value]) / 2)))) for value in range(129)]
    return half + half[127:0:-1]


def residuals(strip: Image.Image, distance: int, number: int) -> Image.Image:
    """What filter `number` leaves of all rows of `strip` but the first, its number in front of each."""
    width, height = strip.size

    def moved(right: int, down: int) -> Image.Image:
        return strip.crop((-1 - right, 1 - down, width - right, height - down))

    original, left, above = moved(0, 0), moved(distance, 0), moved(0, 1)
    if number == NONE:
        lines = original
    elif number == SUB:
        lines = ImageChops.subtract_modulo(original, left)
    elif number == UP:
        lines = ImageChops.subtract_modulo(original, above)
    elif number == AVERAGE:
        lines = ImageChops.subtract_modulo(original, Image.blend(left, above, 0.5))
    else:
        lines = ImageChops.subtract_modulo(original, paeth(left, above, moved(distance, 1)))
    lines.paste(number, (0, 0, 1, lines.height))
    return lines


def paeth(left: Image.Image, above: Image.Image, corner: Image.Image) -> Image.Image:
    """Of the three neighbours, the nearest to left + above - corner.

    With the corner held between the other two, that is the one of them which it is at least twice as far away from, if
    any, or else the corner itself.
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
