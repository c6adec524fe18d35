"""Flat pictures drawn with Pillow: windows, charts, logos, gradients, text. Equal seeds give equal pictures."""

import math
from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw, ImageFont

from bench.pictures import Picture

Size = tuple[int, int]
Colour = tuple[int, int, int]

SIZES = ((320, 180), (400, 300), (640, 360), (800, 600), (720, 1280), (1280, 720), (1600, 900), (1920, 1080))
WORDS = ("Save", "Open", "Cancel", "Export", "Picture", "Settings", "Width", "Height", "Quality", "Format", "Apply")
WHITE, GREY, INK = (255, 255, 255), (220, 220, 220), (30, 30, 40)


def colour(rng: Random, low: int = 0, high: int = 255) -> Colour:
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


def canvas(size: Size, ground: Colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", size, ground)
    return image, ImageDraw.Draw(image)


def write(draw: ImageDraw.ImageDraw, place: Size, text: str, size: float = 10, fill: Colour = INK) -> None:
    draw.text(place, text, fill, ImageFont.load_default(size))


def window(rng: Random, size: Size) -> Image.Image:
    """A title bar, a side bar, and cards with buttons."""
    (width, height), bar = size, colour(rng, 30, 120)
    image, draw = canvas(size, colour(rng, 225, 250))
    unit = max(10, height // 30)
    draw.rectangle((0, 0, width, 2 * unit), bar)
    draw.rectangle((0, 2 * unit, width // 5, height), colour(rng, 200, 240))
    for row in range(rng.randint(3, 8)):
        write(draw, (unit, (3 + 2 * row) * unit), rng.choice(WORDS), unit)
    for card in range(rng.randint(2, 6)):
        left, top = width // 5 + unit + card % 3 * width // 4, (4 + card // 3 * 8) * unit
        draw.rounded_rectangle((left, top, left + width // 5, top + 6 * unit), unit // 2, WHITE, GREY)
        draw.rounded_rectangle((left + unit, top + 3 * unit, left + 6 * unit, top + 5 * unit), unit // 3, bar)
        write(draw, (left + unit, top + unit), rng.choice(WORDS), unit)
    return image


def panels(rng: Random, size: Size) -> Image.Image:
    """Rectangles and a little text."""
    image, draw = canvas(size, (240, 240, 240))
    for _ in range(rng.randint(4, 12)):
        left, top = rng.randrange(size[0]), rng.randrange(size[1])
        draw.rectangle((left, top, left + rng.randrange(size[0] // 3), top + rng.randrange(size[1] // 4)), colour(rng))
    for _ in range(rng.randint(3, 10)):
        write(draw, (rng.randrange(size[0]), rng.randrange(size[1])), " ".join(rng.choices(WORDS, k=4)))
    return image


def dialog(rng: Random, size: Size) -> Image.Image:
    """A window in front of a dark ground, with a soft shadow."""
    shade = rng.randint(60, 140)
    image, draw = canvas(size, (shade, shade, shade))
    left, top, right, bottom = size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4
    for far in range(12, 0, -1):
        around = (left - far, top - far, right + far, bottom + far)
        draw.rounded_rectangle(around, 12, (shade - 12 + far, shade - 12 + far, shade - 12 + far))
    draw.rounded_rectangle((left, top, right, bottom), 8, WHITE)
    draw.rounded_rectangle((right - 110, bottom - 44, right - 16, bottom - 14), 6, (30, 110, 230))
    write(draw, (left + 20, top + 16), f"Delete {rng.choice(WORDS)}?", 18)
    return image


def bars(rng: Random, size: Size) -> Image.Image:
    image, draw = canvas(size, WHITE)
    count, margin, depth = rng.randint(5, 20), size[0] // 12, size[1] - size[0] // 6
    for line in range(6):
        draw.line((margin, margin + depth * line // 5, size[0] - margin, margin + depth * line // 5), GREY)
    step = (size[0] - 2 * margin) // count
    for bar in range(count):
        left, top = margin + step * bar, margin + rng.randrange(depth)
        draw.rectangle((left + 2, top, left + step - 3, margin + depth), (40, rng.randint(90, 190), 200))
        write(draw, (left, margin + depth + 4), rng.choice(WORDS)[:4])
    return image


def curves(rng: Random, size: Size) -> Image.Image:
    width, height = size
    image, draw = canvas(size, colour(rng, 240, 255))
    for line in range(10):
        draw.line((0, height * line // 10, width, height * line // 10), GREY)
    for _ in range(rng.randint(1, 4)):
        swing, waves = rng.random() * height / 3, rng.random() * 50 / width
        points = [(x, height / 2 + swing * math.sin(waves * x)) for x in range(0, width, 4)]
        draw.line(points, colour(rng, 0, 200), rng.randint(1, 3))
    return image


def pie(rng: Random, size: Size) -> Image.Image:
    """With smooth edges."""
    image, draw = canvas((size[0] * 2, size[1] * 2), colour(rng, 235, 255))
    radius, angle = min(size) * 3 // 4, 0
    around = (size[0] - radius, size[1] - radius, size[0] + radius, size[1] + radius)
    while angle < 360:
        draw.pieslice(around, angle, min(360, angle := angle + rng.randint(20, 80)), colour(rng, 60, 220))
    return image.resize(size, Image.Resampling.BOX)


def logo(rng: Random, size: Size) -> Image.Image:
    """A disc, a ring and a name, with smooth edges."""
    image, draw = canvas((size[0] * 2, size[1] * 2), colour(rng))
    for radius in (min(size) // 2, min(size) // 4):
        draw.ellipse((size[0] - radius, size[1] - radius, size[0] + radius, size[1] + radius), colour(rng))
    write(draw, (size[0] // 2, size[1] * 3 // 2), f"ACME {rng.choice(WORDS)}", min(size) // 4, colour(rng))
    return image.resize(size, Image.Resampling.LANCZOS)


def gradient(rng: Random, size: Size) -> Image.Image:
    """Across or down, with a panel or without."""
    slope = Image.linear_gradient("L").rotate(rng.choice((0, 90))).resize(size)
    image = Image.composite(Image.new("RGB", size, colour(rng)), Image.new("RGB", size, colour(rng)), slope)
    if rng.random() < 0.5:
        box = (size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4)
        ImageDraw.Draw(image).rounded_rectangle(box, 20, colour(rng))
    return image


def icons(rng: Random, size: Size) -> Image.Image:
    image, draw = canvas(size, colour(rng, 200, 255))
    side = max(24, min(size) // 6)
    for top in range(side // 2, size[1] - side, side * 3 // 2):
        for left in range(side // 2, size[0] - side, side * 3 // 2):
            shape = rng.choice((draw.ellipse, draw.rectangle))
            shape((left, top, left + side, top + side), colour(rng, 40, 220))
    return image


def table(rng: Random, size: Size) -> Image.Image:
    image, draw = canvas(size, WHITE)
    for top in range(0, min(size[1], 24 * rng.randint(5, 14)), 24):
        draw.rectangle((0, top, size[0], top + 12), (245, 247, 250))
        for left in range(8, size[0], max(80, size[0] // 5)):
            write(draw, (left, top), f"{rng.choice(WORDS)} {rng.randint(1, 99)}")
    return image


KINDS: tuple[Callable[[Random, Size], Image.Image], ...] = (
    window, panels, dialog, bars, curves, pie, logo, gradient, icons, table,
)  # fmt: skip


def drawings() -> list[Picture]:
    """Each kind at every size."""
    return [
        Picture(f"{kind.__name__} {width}x{height}", "drawing", True, kind(Random(width * height), (width, height)))
        for kind in KINDS
        for width, height in SIZES
    ]
