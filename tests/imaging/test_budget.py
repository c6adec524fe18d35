"""The search for a file within a byte budget, with the real encoders."""

import random
from collections.abc import Callable, Sequence

import pytest
from PIL import Image

from service.imaging.budget import ENCODES, Fitted, OverBudget, fitted
from service.imaging.encode import encode
from service.imaging.formats import (
    AvifEncoding,
    Encoding,
    JpegEncoding,
    PngEncoding,
    WebpEncoding,
    at_quality,
    colors_of,
    quality_of,
)
from service.imaging.plan import Budget
from tests.imaging import variety

WHITE = (255, 255, 255)
LOSSY: Sequence[Encoding] = (JpegEncoding(), WebpEncoding(), AvifEncoding())
EVERY: Sequence[Encoding] = (*LOSSY, PngEncoding(compression=6), WebpEncoding(lossless=True))


class Encodes:
    """An encoder that remembers what it made; `fails` says at which of its calls it raises."""

    def __init__(self, fails: Callable[[int], bool] = lambda call: False) -> None:
        self.made: list[Fitted] = []
        self._fails = fails

    def __call__(self, image: Image.Image, encoding: Encoding) -> bytes:
        if self._fails(len(self.made)):
            raise MemoryError
        self.made.append(Fitted(encode(image, encoding, WHITE), image.size, encoding))
        return self.made[-1].data

    @property
    def sizes(self) -> list[int]:
        return [len(each.data) for each in self.made]


def photograph(size: tuple[int, int] = (240, 160), seed: int = 4) -> Image.Image:
    return Image.blend(variety.scene(random.Random(seed), size), noise(size), 0.3)


def noise(size: tuple[int, int]) -> Image.Image:
    return Image.frombytes("RGB", size, random.Random(3).randbytes(3 * size[0] * size[1]))


def searched(
    image: Image.Image,
    encoding: Encoding,
    share: float,
    may_resize: bool = False,
    encodes: Encodes | None = None,
    late: Callable[[], bool] = lambda: False,
) -> tuple[Fitted | OverBudget, Encodes, int]:
    """Search a file of a share of the asked one; returns it, what was encoded, and the budget."""
    encodes = encodes or Encodes()
    asked = len(encode(image, encoding, WHITE))
    budget = Budget(int(share * asked), may_resize)
    return fitted(image, encoding, asked, budget, encodes, late), encodes, budget.bytes


@pytest.mark.parametrize("share", [0.99, 0.8, 0.6])
@pytest.mark.parametrize("encoding", LOSSY)
def test_a_lower_quality_fills_the_budget(encoding: Encoding, share: float) -> None:
    image = photograph()
    made, encodes, most = searched(image, encoding, share)
    assert isinstance(made, Fitted)
    assert made.data == encode(image, at_quality(encoding, made.quality or 0), WHITE)
    assert made.pixels == image.size
    assert 10 <= (made.quality or 0) < (quality_of(encoding) or 0)
    next_larger = [each for each in encodes.made if each.quality == (made.quality or 0) + 1]
    assert 0.9 * most <= len(made.data) <= most or len(next_larger[0].data) > most
    assert 1 <= len(encodes.made) <= ENCODES - 1


@pytest.mark.parametrize(("may_resize", "floor", "share"), [(False, 10, 0.01), (True, 40, 0.1)])
@pytest.mark.parametrize("encoding", LOSSY)
def test_the_lowest_quality_is_tried_before_anything_else_is_given_up(
    encoding: Encoding, may_resize: bool, floor: int, share: float
) -> None:
    image = photograph()
    made, encodes, most = searched(image, encoding, share, may_resize)
    full = [each for each in encodes.made if each.pixels == image.size]
    assert full[-1].quality == floor
    assert min(each.quality or 0 for each in full) == floor
    assert all(len(each.data) > most for each in full)
    if may_resize:
        assert isinstance(made, Fitted)
        assert {each.quality for each in encodes.made[len(full) :]} == {floor}
    else:
        assert made == OverBudget(min(encodes.sizes))


@pytest.mark.parametrize("quality", [0, 5, 10])
def test_a_quality_at_the_floor_is_not_lowered(quality: int) -> None:
    for encoding in LOSSY:
        asked = at_quality(encoding, quality)
        made, encodes, most = searched(photograph(), asked, 0.9)
        assert encodes.made == []
        assert isinstance(made, OverBudget)
        assert made.least > most


@pytest.mark.parametrize("quality", [5, 39, 40])
def test_a_quality_below_the_floor_stays_when_the_picture_is_made_smaller(quality: int) -> None:
    made, encodes, _ = searched(photograph(), JpegEncoding(quality), 0.8, may_resize=True)
    assert isinstance(made, Fitted)
    assert {each.quality for each in encodes.made} == {quality}
    assert max(made.pixels) < 240


def test_palettes_are_tried_from_the_largest_on() -> None:
    image = photograph()
    colours = []
    for share in (0.6, 0.4, 0.3, 0.2, 0.1):
        made, encodes, most = searched(image, PngEncoding(), share)
        tried = [each.colors for each in encodes.made]
        assert tried == [256, 128, 64, 32, 16][: len(tried)]
        assert all(size > most for size in encodes.sizes[:-1])
        if isinstance(made, Fitted):
            assert len(made.data) == encodes.sizes[-1] <= most
        else:
            assert len(tried) == 5
        colours.append(made.colors if isinstance(made, Fitted) else None)
    assert len(set(colours)) > 2


def test_a_smaller_png_has_64_colours() -> None:
    made, encodes, most = searched(photograph(), PngEncoding(), 0.1, may_resize=True)
    assert isinstance(made, Fitted)
    assert [each.colors for each in encodes.made[:3]] == [256, 128, 64]
    assert {(each.colors, each.pixels == (240, 160)) for each in encodes.made[3:]} == {(64, False)}
    assert 0.8 * most <= len(made.data) <= most


def test_a_png_of_few_colours_keeps_every_pixel() -> None:
    image = photograph().quantize(60).convert("RGB")
    made, _, _ = searched(image, PngEncoding(palette=False), 0.9)
    assert isinstance(made, Fitted)
    assert made.colors == 256
    assert made.data == encode(image, PngEncoding(colors=64), WHITE)


def test_lossless_webp_is_only_made_smaller() -> None:
    encoding = WebpEncoding(lossless=True)
    made, encodes, _ = searched(photograph(), encoding, 0.9)
    assert isinstance(made, OverBudget)
    assert encodes.made == []
    made, encodes, _ = searched(photograph(), encoding, 0.9, may_resize=True)
    assert isinstance(made, Fitted)
    assert made.encoding == encoding
    assert max(made.pixels) < 240


@pytest.mark.parametrize("size", [(240, 160), (160, 240), (301, 7), (3, 211), (99, 98)])
@pytest.mark.parametrize("encoding", EVERY)
def test_a_smaller_picture_keeps_its_ratio_and_fills_the_budget(encoding: Encoding, size: tuple[int, int]) -> None:
    made, encodes, most = searched(photograph(size) if min(size) > 8 else noise(size), encoding, 0.3, may_resize=True)
    for each in encodes.made:
        longest, long, short = max(each.pixels), max(size), min(size)
        assert min(each.pixels) == max(1, (2 * short * longest + long) // (2 * long))
    if isinstance(made, Fitted) and made.pixels != size:
        longest = max(made.pixels)
        larger = [each for each in encodes.made if max(each.pixels) == longest + 1]
        assert 0.8 * most <= len(made.data) <= most or len(larger[-1].data) > most
        assert longest >= 16


@pytest.mark.parametrize("encoding", EVERY)
def test_no_picture_is_made_smaller_than_16_pixels(encoding: Encoding) -> None:
    for longest in (15, 16, 17):
        encodes = Encodes()
        made = fitted(noise((longest, 9)), encoding, 10_000, Budget(20, True), encodes, lambda: False)
        assert made == OverBudget(min(encodes.sizes, default=10_000))
        assert {max(each.pixels) for each in encodes.made} <= {longest, max(16, longest - 1)}


def test_nothing_is_encoded_when_it_is_late() -> None:
    for encoding in EVERY:
        made, encodes, _ = searched(photograph(), encoding, 0.5, may_resize=True, late=lambda: True)
        assert isinstance(made, OverBudget)
        assert encodes.made == []


@pytest.mark.parametrize("encoding", EVERY)
def test_a_late_search_ends_with_the_best_file(encoding: Encoding) -> None:
    image, ends = photograph(), []
    _, whole, most = searched(image, encoding, 0.3, may_resize=True)
    for calls in range(1, len(whole.made) + 1):
        encodes = Encodes()
        made, _, _ = searched(image, encoding, 0.3, True, encodes, lambda: len(encodes.made) >= calls)  # noqa: B023  # called at once
        assert encodes.made == whole.made[:calls]
        fitting = [each for each in encodes.made if len(each.data) <= most]
        assert made == (fitting[-1] if fitting else OverBudget(min(encodes.sizes)))
        ends.append(type(made))
    assert ends[-1] is Fitted


@pytest.mark.parametrize("encoding", EVERY)
def test_an_encode_that_fails_loses_no_file_and_is_no_secret(encoding: Encoding) -> None:
    image = photograph()
    _, whole, most = searched(image, encoding, 0.3, may_resize=True)
    for calls in range(len(whole.made)):
        fitting = [each for each in whole.made[:calls] if len(each.data) <= most]
        encodes = Encodes(lambda call: call == calls)  # noqa: B023  # called at once
        if fitting:
            made, _, _ = searched(image, encoding, 0.3, True, encodes)
            assert isinstance(made, Fitted)
            assert made.data == fitting[-1].data
            assert isinstance(made.fault, MemoryError)
        else:
            with pytest.raises(MemoryError):
                searched(image, encoding, 0.3, True, encodes)


def test_the_largest_file_within_the_budget_is_kept() -> None:
    for seed in range(6):
        for encoding in EVERY:
            made, encodes, most = searched(photograph(seed=seed), encoding, 0.35, may_resize=True)
            assert isinstance(made, Fitted)
            assert made.data == max((each.data for each in encodes.made if len(each.data) <= most), key=len)
            assert (made.colors, made.quality) == (colors_of(made.encoding), quality_of(made.encoding))
