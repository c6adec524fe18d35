"""The box that `cover` keeps, around a point and where a picture has most detail."""

import random
from fractions import Fraction
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from service.imaging.focus import CropBox, cover_box
from service.imaging.frame import Size
from service.imaging.normalize import resize
from service.imaging.plan import Focus
from tests.imaging import pictures

WHITE = (255, 255, 255)
SIDES = st.tuples(st.integers(1, 9_000), st.integers(1, 9_000))
SUBJECT = 40


def exact_box(have: Size, want: Size, focus: tuple[int, int]) -> list[Fraction]:
    """The box by the formula, in exact numbers."""
    (w, h), ratio = have, Fraction(*want)
    size = (min(Fraction(w), h * ratio), min(Fraction(h), w / ratio))
    starts = [
        min(max(Fraction(at, 10_000) * whole - part / 2, Fraction(0)), whole - part)
        for at, whole, part in zip(focus, have, size, strict=True)
    ]
    return [*starts, starts[0] + size[0], starts[1] + size[1]]


@given(have=SIDES, want=SIDES, focus=st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)))
@settings(deadline=None)
def test_the_box_is_that_of_the_formula(have: Size, want: Size, focus: tuple[int, int]) -> None:
    # Only the size of the image counts.
    left, top, right, bottom = box = cover_box(Image.new("1", have), want, focus)
    assert all(abs(one - other) < 0.01 for one, other in zip(box, exact_box(have, want, focus), strict=True))
    assert 0 <= left < right <= have[0]
    assert 0 <= top < bottom <= have[1]


@pytest.mark.parametrize("want", [(50, 200), (100, 100), (199, 10), (7, 3)])
def test_a_crop_shows_the_pixels_of_its_box(want: Size) -> None:
    across, down = (Image.linear_gradient("L").rotate(turn) for turn in (90, 0))
    image = Image.merge("RGB", (across, down, across)).crop((0, 0, 256, 200))
    for focus in ((0, 0), (10_000, 10_000), (3_333, 6_667), (5_000, 5_000), (9_000, 100)):
        left, top, right, bottom = cover_box(image, want, focus)
        shown = resize(image, want, "cover", WHITE, focus).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        assert isinstance(shown, tuple)
        middle = (left + right - 1) / 2, (top + bottom - 1) / 2
        assert all(abs(is_ - should) <= 1 for is_, should in zip(shown, middle, strict=False))


def test_without_a_focus_the_centre_is_kept() -> None:
    image = Image.new("RGB", (301, 100))
    assert cover_box(image, (40, 40), None) == cover_box(image, (40, 40), (5_000, 5_000)) == (100.5, 0, 200.5, 100)


@cache
def ground(size: Size) -> Image.Image:
    """Soft shades without detail."""
    return pictures.image().crop((30, 20, 90, 60)).resize((12, 8)).resize(size, Image.Resampling.BICUBIC)


def noise(size: Size, seed: int) -> Image.Image:
    return Image.frombytes("RGB", size, random.Random(seed).randbytes(3 * size[0] * size[1]))


@cache
def grainy_ground(size: Size) -> Image.Image:
    return Image.blend(ground(size), noise(size, 0), 0.05)


def with_subject(size: Size, at: tuple[int, int], seed: int) -> Image.Image:
    """Soft shades with a little grain, and a square of soft noise at this place."""
    image = grainy_ground(size).copy()
    image.paste(noise((SUBJECT, SUBJECT), seed).filter(ImageFilter.GaussianBlur(1)), at)
    return image


@pytest.mark.parametrize("want", [(100, 100), (60, 100), (300, 60)])
def test_a_subject_at_any_place_lies_in_the_crop(want: Size) -> None:
    found, chance, size = 0, random.Random(7), (480, 270)
    for seed in range(200):
        left, top = chance.randint(0, size[0] - SUBJECT), chance.randint(0, size[1] - SUBJECT)
        box = cover_box(with_subject(size, (left, top), seed), want, "auto")
        found += _contains(box, (left, top, left + SUBJECT, top + SUBJECT))
    assert found >= 190


def _contains(box: CropBox, part: CropBox) -> bool:
    return box[0] <= part[0] and box[1] <= part[1] and box[2] >= part[2] and box[3] >= part[3]


@pytest.mark.parametrize("want", [(100, 100), (300, 20), (20, 300), (479, 270)])
@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (480, 270), "teal"),
        Image.new("RGBA", (480, 270), (0, 90, 90, 40)),
        Image.linear_gradient("L").resize((480, 270)).convert("RGB"),
        Image.linear_gradient("L").rotate(90).resize((480, 270)).convert("RGB"),
        ground((480, 270)),
        Image.new("RGB", (1, 1)),
        Image.new("RGB", (9_000, 3)),
    ],
)
def test_a_picture_without_detail_is_cropped_at_its_centre(image: Image.Image, want: Size) -> None:
    assert cover_box(image, want, "auto") == pytest.approx(cover_box(image, want, None))


def test_of_two_equal_subjects_the_one_nearer_to_the_centre_is_kept() -> None:
    image = Image.new("RGB", (480, 270), "teal")
    for at in (20, 330):
        image.paste("white", (at, 100, at + SUBJECT, 140))
    left, _, right, _ = cover_box(image, (135, 270), "auto")
    assert left < 330 < 370 < right


def test_equal_pictures_give_equal_crops() -> None:
    boxes = {cover_box(with_subject((480, 270), (400, 60), 5), (100, 100), "auto") for _ in range(3)}
    assert len(boxes) == 1


def test_a_mirrored_picture_gives_a_mirrored_crop() -> None:
    image = with_subject((480, 270), (60, 60), 5)
    left, _, right, _ = cover_box(image, (100, 100), "auto")
    mirrored = cover_box(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (100, 100), "auto")
    assert (480 - mirrored[2], 480 - mirrored[0]) == pytest.approx((left, right), abs=3)


def test_colours_under_transparency_are_no_detail_but_an_outline_is() -> None:
    image = Image.new("RGBA", (480, 270))
    image.paste(with_subject((480, 270), (400, 100), 3), (0, 0))
    image.putalpha(0)
    assert cover_box(image, (100, 100), "auto") == cover_box(image, (100, 100), None)
    ImageDraw.Draw(image).ellipse((20, 90, 60, 130), fill=(0, 0, 0, 255))
    left, _, right, _ = cover_box(image, (100, 100), "auto")
    assert left <= 20
    assert right >= 60


@pytest.mark.parametrize("focus", [None, (0, 0), (10_000, 2_500), "auto"])
@given(have=st.tuples(st.integers(1, 300), st.integers(1, 300)), want=SIDES)
@settings(max_examples=60, deadline=None)
def test_any_box_lies_within_the_picture(focus: Focus, have: Size, want: Size) -> None:
    left, top, right, bottom = cover_box(Image.effect_mandelbrot(have, (-2, -1, 1, 1), 20).convert("RGB"), want, focus)
    assert 0 <= left < right <= have[0]
    assert 0 <= top < bottom <= have[1]
