import random
from collections.abc import Callable
from itertools import pairwise
from math import log2

import pytest
from PIL import Image

from service.imaging.filters import ALL, AVERAGE, GUESS, NONE, PAETH, SUB, UP, filter_rows, prices

WIDTH, ROWS = 23, 9


def paeth(left: int, above: int, corner: int) -> int:
    """The predictor as written in https://www.w3.org/TR/png-3/#9Filter-type-4-Paeth."""
    estimate = left + above - corner
    return min((left, above, corner), key=lambda value: abs(estimate - value))


PREDICTORS: dict[int, Callable[[int, int, int], int]] = {
    NONE: lambda left, above, corner: 0,
    SUB: lambda left, above, corner: left,
    UP: lambda left, above, corner: above,
    AVERAGE: lambda left, above, corner: (left + above) // 2,
    PAETH: paeth,
}


def strip(values: list[int]) -> Image.Image:
    chosen = random.Random(1).choices(values, k=WIDTH * (ROWS + 1))
    return Image.frombytes("L", (WIDTH, ROWS + 1), bytes(chosen))


def filtered(image: Image.Image, distance: int, number: int) -> bytes:
    """A filtered row, computed byte by byte."""
    rows = [image.crop((0, top, WIDTH, top + 1)).tobytes() for top in range(ROWS + 1)]
    lines = []
    for before, row in pairwise(rows):
        pad = bytes(distance)
        neighbours = zip(pad + row, before, pad + before, strict=False)
        lines.append(bytes([number]))
        lines.append(bytes((v - PREDICTORS[number](*near)) % 256 for v, near in zip(row, neighbours, strict=False)))
    return b"".join(lines)


@pytest.mark.parametrize("values", [list(range(256)), [0, 1, 254, 255], [0, 127, 128, 255], [7]])
@pytest.mark.parametrize("distance", [1, 3, 4])
@pytest.mark.parametrize("number", PREDICTORS)
def test_every_filter_agrees_with_the_specification(number: int, distance: int, values: list[int]) -> None:
    image = strip(values)
    assert filter_rows(image, distance, (number,), GUESS).cheapest((number,)) == filtered(image, distance, number)


def test_each_row_takes_the_filter_that_leaves_it_cheapest() -> None:
    image = Image.linear_gradient("L").resize((64, 33))
    image.paste(Image.linear_gradient("L").rotate(90).resize((64, 16)), (0, 17))
    lines = filter_rows(image, 1, (SUB, UP), GUESS).cheapest((SUB, UP))
    assert set(lines[: 16 * 65 : 65]) == {SUB}
    assert set(lines[17 * 65 :: 65]) == {UP}


def test_of_equally_cheap_filters_the_first_is_taken() -> None:
    lines = filter_rows(Image.new("L", (8, 5)), 1, ALL, GUESS).cheapest(ALL)
    assert set(lines[::9]) == {SUB}


def test_frequent_bytes_are_cheap_and_every_byte_has_a_price() -> None:
    seen = prices(bytes(900) + bytes([1, 255] * 50))
    assert seen[0] < seen[1] == seen[255] < seen[2] == seen[128] <= 255
    assert seen[1] - seen[0] == pytest.approx(20 * log2(900 / 50), abs=5)
