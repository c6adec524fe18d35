import random
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PIL import Image, ImageDraw

from service.imaging import deflate
from service.imaging.deflate import EFFORTS, THOROUGH, Effort, StripDeflater, deflated
from service.imaging.filters import SUB

WIDTH, ROWS, STRIPS = 900, 80, 4
NINE = EFFORTS[9]


def noise(seed: int) -> Image.Image:
    return Image.frombytes("L", (WIDTH, ROWS + 1), random.Random(seed).randbytes(WIDTH * (ROWS + 1)))


def drawing(seed: int) -> Image.Image:
    """A repeating texture, which only a match search compresses."""
    tile = Image.frombytes("L", (50, 20), random.Random(1).randbytes(1_000))
    image = Image.new("L", (WIDTH, ROWS + 1))
    for left in range(0, WIDTH, 50):
        for top in range(0, ROWS + 1, 20):
            image.paste(tile, (left, top))
    return image


def letters(seed: int) -> Image.Image:
    """Empty in the middle, where the sample is taken, and text around it."""
    image = Image.new("L", (WIDTH, ROWS + 1), 255)
    for top in (0, ROWS - 10):
        ImageDraw.Draw(image).text((0, top), "the quick brown fox jumps over the lazy dog " * 3)
    return image


def stripe(seed: int) -> Image.Image:
    """Noise in the middle, where the sample is taken, and empty around it."""
    image = Image.new("L", (WIDTH, ROWS + 1))
    image.paste(noise(seed).crop((0, 30, WIDTH, 52)), (0, 30))
    return image


def interrupted(middle: Image.Image) -> Image.Image:
    """A repeating texture, except where the sample is taken."""
    image = drawing(0)
    image.paste(middle.crop((0, 30, WIDTH, 52)), (0, 30))
    return image


def strips(*images: Image.Image) -> Iterator[tuple[Image.Image, bool]]:
    for number, image in enumerate(images, 1):
        yield image, number == len(images)


def made(effort: Effort, *images: Image.Image) -> bytes:
    return b"".join(deflated(strips(*images), 1, False, effort))


@pytest.mark.parametrize("effort", [*EFFORTS, *THOROUGH[8:]])
def test_every_stream_is_inflated_by_zlib(effort: Effort) -> None:
    images = [picture(seed) for seed, picture in enumerate((noise, drawing, letters, drawing, noise))]
    lines = zlib.decompress(made(effort, *images))
    assert len(lines) == len(images) * ROWS * (WIDTH + 1)


@pytest.mark.parametrize("picture", [noise, drawing, letters])
def test_no_effort_is_larger_than_entropy_coding_alone(picture: Callable[[int], Image.Image]) -> None:
    images = [picture(seed) for seed in range(STRIPS)]
    assert len(made(NINE, *images)) <= len(made(Effort(), *images))


def test_a_gain_that_the_sample_cannot_show_is_found() -> None:
    assert len(made(NINE, letters(0))) < 0.8 * len(made(Effort(), letters(0)))


def test_empty_rows_outside_the_sample_are_cheap() -> None:
    noisy_bytes = 22 * WIDTH
    assert len(made(NINE, stripe(0))) < 1.05 * noisy_bytes


@pytest.mark.parametrize("middle", [Image.new("L", (WIDTH, ROWS + 1)), noise(0).point(lambda value: value // 64)])
def test_a_strip_unlike_its_sample_is_searched(middle: Image.Image) -> None:
    image = interrupted(middle)
    assert len(made(NINE, image)) < 0.4 * len(made(Effort(), image))


def test_a_strip_unlike_the_last_is_not_skipped() -> None:
    noisy, written = len(made(NINE, noise(0))), len(made(NINE, letters(0), letters(1)))
    assert len(made(NINE, noise(0), letters(0), letters(1))) < noisy + 1.1 * written


def test_matches_reach_into_the_previous_strip() -> None:
    once, twice = len(made(NINE, drawing(0))), len(made(NINE, drawing(0), drawing(1)))
    assert twice < 1.6 * once


def test_noise_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[int] = []
    whole = deflate.deflate

    def noted(data: bytes, level: int, *rest: Any, **named: Any) -> bytes:
        levels.append(level)
        return whole(data, level, *rest, **named)

    monkeypatch.setattr(deflate, "deflate", noted)
    made(NINE, noise(0), noise(1))
    assert max(levels) == 6, "samples only"


@pytest.mark.parametrize("level", [8, 9])
def test_thorough_is_hardly_ever_larger(level: int) -> None:
    images = [drawing(0), letters(1), noise(2)]
    assert len(made(THOROUGH[level], *images)) <= 1.001 * len(made(EFFORTS[level], *images))


def test_thorough_changes_the_last_two_levels_only() -> None:
    assert THOROUGH[:8] == EFFORTS[:8]
    assert THOROUGH[8:] != EFFORTS[8:]


def ramps(seed: int) -> Image.Image:
    """Rows of different slopes: constant after the Sub filter, not after Up."""
    rates = random.Random(seed).choices(range(1, 8), k=ROWS + 1)
    return Image.frombytes("L", (WIDTH, ROWS + 1), bytes(rate * x % 256 for rate in rates for x in range(WIDTH)))


def columns(seed: int) -> Image.Image:
    """Equal rows: zero after the Up filter, not after Sub."""
    row = random.Random(seed).randbytes(WIDTH)
    return Image.frombytes("L", (WIDTH, ROWS + 1), row * (ROWS + 1))


def test_a_nearly_empty_strip_does_not_change_the_price_of_bytes() -> None:
    before, after = made(Effort(), columns(0)), made(Effort(), columns(0), ramps(1))
    assert len(after) - len(before) < 1.5 * len(made(Effort(), ramps(1)))


def test_filters_that_turn_out_worse_than_their_sample_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = columns(0)
    picture.paste(drawing(0).crop((0, 0, WIDTH, ROWS // 2)))
    honest = len(made(THOROUGH[9], picture))
    monkeypatch.setattr(StripDeflater, "predicted", lambda _, filtered, *rest: (filtered.cheapest((SUB,)), 0.5))
    assert len(made(THOROUGH[9], picture)) < 1.1 * honest
