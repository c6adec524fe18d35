"""The PNG encoder: Pillow and libvips decode every file to the same pixels."""

import random
import zlib
from collections.abc import Callable
from io import BytesIO

import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from service.imaging.deflate import WINDOW_BYTES
from service.imaging.png import encode_png
from service.imaging.quantize import quantize

Picture = Callable[..., Image.Image]

MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
SIZES = ((1, 1), (1, 37), (37, 1), (2, 3), (7, 5), (63, 65), (257, 31))
LEVELS = range(10)


def noise(mode: str, size: tuple[int, int], seed: int = 1) -> Image.Image:
    """Reproducible noise."""
    data = random.Random(seed).randbytes(size[0] * size[1] * 4)
    return Image.frombytes("RGBA", size, data).convert(mode)


def scenery(size: tuple[int, int] = (320, 200)) -> Image.Image:
    """Soft shades with grain, which compress like a photograph."""
    slope = Image.linear_gradient("L").resize(size)
    hill = Image.radial_gradient("L").resize(size)
    sky = Image.merge("RGB", (slope, hill, slope.transpose(Image.Transpose.ROTATE_180)))
    return Image.blend(sky, noise("RGB", size), 0.04)


def interface(size: tuple[int, int] = (320, 200)) -> Image.Image:
    """Flat panels, thin lines and text."""
    image = Image.new("RGB", size, (240, 240, 240))
    draw = ImageDraw.Draw(image)
    for row in range(0, size[1], 20):
        draw.rectangle((0, row, size[0] // 3, row + 10), fill=(row, 90, 200))
        draw.text((size[0] // 2, row), f"Row number {row}", fill=(20, 20, row))
    return image


def pillow_png(image: Image.Image, level: int) -> bytes:
    file = BytesIO()
    image.save(file, "PNG", compress_level=level)
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


def assert_holds(data: bytes, image: Image.Image) -> None:
    """Compares both decoders with the image, in a mode that loses nothing."""
    expected = image.convert("RGBA")
    assert opened(data).convert("RGBA").tobytes() == expected.tobytes()
    picture = pyvips.Image.new_from_buffer(data, "", fail_on="warning").colourspace("srgb")
    if not picture.hasalpha():
        picture = picture.bandjoin(255)
    assert (picture.width, picture.height) == image.size
    assert picture.cast("uchar").write_to_memory() == expected.tobytes()


def chunks(data: bytes) -> dict[bytes, bytes]:
    found, place = {}, 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        found[data[place + 4 : place + 8]] = data[place + 8 : place + 8 + length]
        place += length + 12
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_and_size_comes_back_bit_for_bit(mode: str, size: tuple[int, int]) -> None:
    image = noise(mode, size)
    assert_holds(encode_png(image, 9), image)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("picture", [scenery, interface])
def test_every_level_holds_every_pixel(picture: Picture, level: int) -> None:
    image = picture()
    assert_holds(encode_png(image, level), image)


@pytest.mark.parametrize("thorough", [False, True])
def test_a_picture_of_many_unlike_strips_holds_every_pixel(thorough: bool) -> None:
    image = noise("RGB", (800, 1000))
    for top, part in enumerate((scenery, interface, scenery)):
        image.paste(part((800, 250)), (0, top * 250))
    assert_holds(encode_png(image, 9, thorough=thorough), image)


@pytest.mark.slow
@given(st.sampled_from(MODES), st.integers(1, 20), st.integers(1, 20), st.data(), st.sampled_from(LEVELS))
@settings(max_examples=150, deadline=None)
def test_whatever_the_pixels_are_they_come_back(
    mode: str, width: int, height: int, data: st.DataObject, level: int
) -> None:
    few = st.sampled_from([0, 1, 127, 128, 255])
    length = len(Image.new(mode, (width, height)).tobytes())
    pixels = data.draw(st.lists(few, min_size=length, max_size=length) | st.binary(min_size=length, max_size=length))
    image = Image.frombytes(mode, (width, height), bytes(pixels))
    assert_holds(encode_png(image, level), image)


def test_a_palette_picture_with_a_transparent_colour_keeps_it() -> None:
    image = interface().quantize(64)
    image.info["transparency"] = 3
    assert_holds(encode_png(image, 9), image)


@pytest.mark.parametrize(("colours", "depth"), [(1, 1), (2, 1), (3, 2), (4, 2), (16, 4), (17, 8), (256, 8)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_few_colours_become_a_palette_of_the_least_depth(mode: str, colours: int, depth: int) -> None:
    shades = (value % colours for value in noise("L", (197, 161)).tobytes())
    image = Image.new(mode, (197, 161))
    image.putdata([(shade, 255 - shade, 7, 3 * shade % 256)[: len(mode)] for shade in shades])
    data = encode_png(image, 9)
    assert_holds(data, image)
    assert chunks(data)[b"IHDR"][8:10] == bytes([depth, 3])


def test_257_colours_make_no_palette() -> None:
    image = Image.new("RGB", (257, 60))
    image.putdata([(index % 257 % 256, index % 257 // 256, 0) for index in range(257 * 60)])
    data = encode_png(image, 9)
    assert_holds(data, image)
    assert chunks(data)[b"IHDR"][9] == 2


def test_a_grey_picture_is_stored_in_one_byte_per_pixel() -> None:
    grey = scenery().convert("L")
    data = encode_png(grey.convert("RGB"), 9)
    assert_holds(data, grey)
    assert opened(data).mode == "P"
    assert len(data) < len(pillow_png(grey.convert("RGB"), 9))


def test_an_alpha_channel_that_hides_nothing_is_left_out() -> None:
    image = scenery().convert("RGBA")
    data = encode_png(image, 9)
    assert_holds(data, image)
    assert opened(data).mode == "RGB"


@pytest.mark.parametrize("mode", MODES)
def test_every_file_says_srgb_and_nothing_else(mode: str) -> None:
    data = encode_png(noise(mode, (40, 30)), 6)
    assert opened(data).info["srgb"] == 0
    assert set(chunks(data)) - {b"PLTE", b"tRNS"} == {b"IHDR", b"sRGB", b"IDAT", b"IEND"}


@pytest.mark.parametrize("level", LEVELS)
def test_equal_pictures_give_equal_bytes(level: int) -> None:
    first = encode_png(scenery(), level)
    encode_png(interface(), level)
    assert encode_png(scenery(), level) == first


def test_the_picture_is_unchanged() -> None:
    image = scenery()
    before = image.tobytes()
    encode_png(image, 9)
    assert image.tobytes() == before


def test_the_stream_is_plain_zlib() -> None:
    image = scenery()
    rows = zlib.decompress(chunks(encode_png(image, 9))[b"IDAT"])
    assert len(rows) == (3 * image.width + 1) * image.height > WINDOW_BYTES


@pytest.mark.parametrize("level", LEVELS)
def test_no_level_is_larger_than_pillows(level: int) -> None:
    pictures = [picture((640, 400)) for picture in (scenery, interface)]
    ours = sum(len(encode_png(image, level)) for image in pictures)
    assert ours <= 1.01 * sum(len(pillow_png(image, level)) for image in pictures)


@pytest.mark.parametrize("picture", [scenery, interface])
def test_the_default_is_never_much_larger_than_pillows(picture: Picture) -> None:
    image = picture((640, 400))
    assert len(encode_png(image, 9)) <= 1.06 * len(pillow_png(image, 9))


def test_a_small_file_does_without_a_palette_where_that_is_smaller() -> None:
    image = Image.linear_gradient("L").convert("RGB")
    data = encode_png(image, 9)
    assert_holds(data, image)
    assert b"PLTE" not in chunks(data)
    assert len(data) < len(pillow_png(image, 9)) + 256


def test_another_mode_is_refused() -> None:
    with pytest.raises(KeyError):
        encode_png(Image.new("CMYK", (4, 4)), 9)


@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("colors", [256, 64, 16])
def test_a_limit_of_colours_makes_an_indexed_png(mode: str, colors: int, palette: bool) -> None:
    for image in (noise(mode, (63, 65)), noise(mode, (3, 2)), Image.new(mode, (640, 400), "red")):
        made = opened(encode_png(image, 9, palette=palette, colors=colors))
        assert made.mode == "P"
        assert made.convert(mode).tobytes() == quantize(image, colors).tobytes()
