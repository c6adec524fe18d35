"""Pictures of many kinds, made from a seed."""

import random
from collections.abc import Callable
from functools import cache
from io import BytesIO

from PIL import Image, ImageDraw, ImageFilter

from service.emulator.drawing import draw

DRAWINGS = 4


def picture(seed: int) -> Image.Image:
    """An RGB picture, or an RGBA one from every fifth seed; from 12 x 8 to 300 x 200 pixels."""
    chance = random.Random(seed)
    size = chance.choice((chance.randint(12, 60), chance.randint(100, 300))), chance.randint(8, 200)
    image = chance.choice(KINDS)(chance, size)
    if seed % 5 == 0:
        image.putalpha(Image.radial_gradient("L").resize(size).point(lambda level: max(0, min(255, 4 * (190 - level)))))
    return image


@cache
def drawing(number: int) -> Image.Image:
    return Image.open(BytesIO(draw(f"Story number {number}", (640, 360), str(number)))).convert("RGB")


def scene(chance: random.Random, size: tuple[int, int]) -> Image.Image:
    """A part of a drawing."""
    whole = drawing(chance.randrange(DRAWINGS))
    left, top = chance.randint(0, whole.width - size[0]), chance.randint(0, whole.height - size[1])
    return whole.crop((left, top, left + size[0], top + size[1]))


def grainy(chance: random.Random, size: tuple[int, int]) -> Image.Image:
    """A scene with grain, which compresses like a photograph."""
    return Image.blend(scene(chance, size), noise(chance, size), chance.uniform(0.02, 0.2))


def noise(chance: random.Random, size: tuple[int, int]) -> Image.Image:
    grain = Image.frombytes("RGB", size, chance.randbytes(3 * size[0] * size[1]))
    return grain.filter(ImageFilter.GaussianBlur(chance.choice((0, 1, 3))))


def interface(chance: random.Random, size: tuple[int, int]) -> Image.Image:
    """Flat panels, thin lines and text."""
    image = Image.new("RGB", size, (240, 240, 240))
    brush = ImageDraw.Draw(image)
    for row in range(0, size[1], chance.randint(12, 30)):
        brush.rectangle((0, row, size[0] // 3, row + 10), fill=tuple(chance.randbytes(3)))
        brush.text((size[0] // 2, row), f"Row number {row}", fill=(20, 20, row))
    return image


def few_colours(chance: random.Random, size: tuple[int, int]) -> Image.Image:
    """Noise of 2 to 300 colours, none of which is rare."""
    colours = [tuple(chance.randbytes(3)) for _ in range(chance.choice((2, 16, 17, 64, 200, 300)))]
    image = Image.new("RGB", size)
    image.putdata([chance.choice(colours) for _ in range(size[0] * size[1])])
    return image


KINDS: tuple[Callable[[random.Random, tuple[int, int]], Image.Image], ...] = (
    scene,
    grainy,
    noise,
    interface,
    few_colours,
)
