"""Images in few colours."""

import pytest
from PIL import Image, ImageChops, ImageStat

from service.imaging.quantize import quantize
from tests.imaging import pictures

COLORS = (256, 128, 64, 32, 16)


def few(mode: str, count: int) -> Image.Image:
    """An image of exactly `count` colours."""
    image = Image.new(mode, (count, 3))
    image.putdata([(index, 255 - index, index // 2, 255 - index)[: len(mode)] for index in range(count)] * 3)
    return image


def shaded(alpha: Image.Image) -> Image.Image:
    """Black to white, with the alpha."""
    grey = Image.linear_gradient("L").resize(alpha.size)
    return Image.merge("RGBA", (grey, grey, grey, alpha))


@pytest.mark.parametrize("colors", COLORS)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_image_has_at_most_so_many_colours_close_to_its_own(mode: str, colors: int) -> None:
    image = pictures.image(mode)
    assert image.getcolors(colors) is None
    made = quantize(image, colors)
    assert (made.mode, made.size) == (mode, image.size)
    assert made.getcolors(colors) is not None
    seen = (one.convert("RGBa") if mode == "RGBA" else one for one in (image, made))
    assert max(ImageStat.Stat(ImageChops.difference(*seen)).mean) < 48


@pytest.mark.parametrize("colors", COLORS)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_image_without_more_colours_keeps_every_pixel(mode: str, colors: int) -> None:
    image = few(mode, colors)
    assert quantize(image, colors) is image
    assert quantize(image, colors // 2).getcolors(colors // 2) is not None


def test_an_opaque_image_is_dithered_and_a_transparent_one_is_not() -> None:
    clear = shaded(Image.new("L", (64, 256), 254))
    opaque = clear.convert("RGB")
    row = (0, 100, 64, 101)
    assert len(quantize(clear, 16).crop(row).getcolors() or ()) == 1
    assert len(quantize(opaque, 16).crop(row).getcolors() or ()) > 1


@pytest.mark.parametrize("colors", COLORS)
def test_few_colours_leave_no_holes_in_an_image_with_soft_edges(colors: int) -> None:
    alpha = Image.radial_gradient("L").point(lambda value: max(0, min(255, 3 * (200 - value))))
    image = pictures.image().resize(alpha.size)
    image.putalpha(alpha)
    made = quantize(image, colors)
    assert min(made.crop((90, 90, 166, 166)).getchannel("A").tobytes()) > 200


def test_equal_images_give_equal_colours() -> None:
    for mode in ("RGB", "RGBA"):
        assert quantize(pictures.image(mode), 64).tobytes() == quantize(pictures.image(mode), 64).tobytes()
