"""Flat pictures as PNG: small, whole, and no trap for pictures that only look flat."""

from itertools import product
from random import Random

import pytest
from PIL import Image

from bench.drawings import KINDS
from service.imaging.encode import encode
from service.imaging.flat import CHUNK, LARGEST, LONGEST, flat_stream, is_flat
from service.imaging.formats import PngEncoding
from service.imaging.png import STRIP_BYTES, encode_png
from tests.imaging.test_png import assert_holds, noise, pillow_png, scenery

NAMED = {kind.__name__: kind for kind in KINDS}
DRAWINGS = list(product(NAMED, [(200, 120), (640, 360), (1280, 720)]))
PILLOWS_MODES = ("1", "L", "LA", "RGB", "RGBA")


def drawing(name: str, size: tuple[int, int]) -> Image.Image:
    return NAMED[name](Random(7), size)


def speckled(size: tuple[int, int]) -> Image.Image:
    """Noise of two levels, which takes a thorough search long, but for the pixels that a sample takes."""
    image = noise("RGB", size).point(lambda value: value & 1)
    step = -(-max(size) // 96)
    for left, top in product(range(step // 2, size[0], step), range(step // 2, size[1], step)):
        image.paste(0, (left - 1, top - 1, left + 2, top + 2))
    return image


@pytest.mark.parametrize(("name", "size"), DRAWINGS)
def test_a_drawing_takes_at_most_a_sixteenth_more_than_pillows(name: str, size: tuple[int, int]) -> None:
    image = drawing(name, size)
    theirs = len(pillow_png(image, 9))
    assert len(encode(image, PngEncoding(), (0, 0, 0))) <= 1.06 * theirs


@pytest.mark.parametrize("level", range(2, 10))
def test_a_drawing_is_smaller_than_pillows_at_every_level(level: int) -> None:
    images = [drawing(name, (640, 360)) for name in NAMED]
    ours = sum(len(encode_png(image, level, palette=False)) for image in images)
    assert ours <= sum(len(pillow_png(image, level)) for image in images)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (97, 95), (333, 77)])
@pytest.mark.parametrize("mode", PILLOWS_MODES)
def test_every_mode_and_size_comes_back_bit_for_bit(mode: str, size: tuple[int, int]) -> None:
    for image in (drawing("window", (400, 300)).resize(size).convert(mode), Image.new(mode, size)):
        assert_holds(encode_png(image, 9, palette=False), image)


@pytest.mark.parametrize("name", NAMED)
def test_drawings_are_flat_and_photographs_are_not(name: str) -> None:
    assert is_flat(drawing(name, (1280, 720)), STRIP_BYTES)
    assert not is_flat(scenery((1280, 720)), STRIP_BYTES)
    assert not is_flat(scenery((96, 54)), STRIP_BYTES)


def test_a_picture_that_only_looks_flat_is_compressed_in_strips() -> None:
    image = speckled((672, 672))
    assert is_flat(image, STRIP_BYTES)
    assert flat_stream(image, "RGB", 3 * image.width, 9) is None
    assert_holds(encode_png(image, 9, palette=False), image)


def test_the_attempt_ends_with_the_first_bytes_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []

    class Counted:
        def __init__(self, *_: int) -> None:
            fed.append(0)

        def compress(self, data: bytes) -> bytes:
            fed[-1] += len(data)
            return data

    monkeypatch.setattr("service.imaging.flat.zlib_ng.compressobj", Counted)
    image = Image.new("RGB", (1280, 720))
    assert flat_stream(image, "RGB", 3 * image.width, 9) is None
    assert fed == [LONGEST + CHUNK]


def test_a_picture_too_large_to_be_held_as_a_whole_is_not_taken() -> None:
    assert is_flat(Image.new("L", (LARGEST // 4096, 4096)), STRIP_BYTES)
    assert not is_flat(Image.new("L", (LARGEST // 4096 + 1, 4096)), STRIP_BYTES)
