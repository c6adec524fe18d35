"""Generated animations, and what Pillow reads of a file."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO

from PIL import Image, ImageChops, ImageDraw, ImageSequence, ImageStat

from tests.imaging import pictures

SIZE = (96, 64)

Scene = Callable[[int], list[Image.Image]]


def panned(count: int) -> list[Image.Image]:
    """A window that moves over the scene: every pixel changes."""
    scene = _large_scene()
    return [scene.crop((4 * step, 2 * step, 4 * step + SIZE[0], 2 * step + SIZE[1])) for step in range(count)]


@cache
def _large_scene() -> Image.Image:
    return pictures.image("RGB", (160, 96))


def rolled(count: int) -> list[Image.Image]:
    """A ball that rolls over the still scene, opaque."""
    return [_with_ball(pictures.image("RGB", SIZE), step) for step in range(count)]


def sprites(count: int) -> list[Image.Image]:
    """A ball with a soft edge that moves over nothing."""
    return [_with_ball(Image.new("RGBA", SIZE), step) for step in range(count)]


def _with_ball(image: Image.Image, step: int) -> Image.Image:
    draw = ImageDraw.Draw(image)
    left, top = 5 + 7 * step, 20 + 3 * (step % 3)
    draw.ellipse((left, top, left + 24, top + 24), (220, 40, 30), (90, 20, 120, 100), 2)
    draw.line((left + 12, top, left + 12, top + 12), (250, 220, 40))
    return image


def drawn(count: int) -> list[Image.Image]:
    """A bar that grows over a few flat colours."""
    frames = []
    for step in range(count):
        frame = Image.new("RGB", SIZE, (245, 245, 240))
        draw = ImageDraw.Draw(frame)
        draw.rectangle((0, 0, SIZE[0], 10), (40, 60, 90))
        draw.rectangle((8, 30, 12 + 8 * step, 40), (30, 140, 60))
        frames.append(frame)
    return frames


def random_frames(numbers: random.Random) -> list[Image.Image]:
    """A few small frames of at most 40 colours and two levels of alpha, most of them like the one before in part."""
    size = numbers.randint(1, 20), numbers.randint(1, 20)
    colours = [bytes(numbers.choices(range(256), k=3)) for _ in range(numbers.choice((1, 3, 40)))]
    alphas = numbers.choice((b"\xff", b"\0\xff"))

    def noise(width: int, height: int) -> Image.Image:
        pixels = (numbers.choice(colours) + bytes((numbers.choice(alphas),)) for _ in range(width * height))
        return Image.frombytes("RGBA", (width, height), b"".join(pixels))

    frames = [noise(*size)]
    for _ in range(numbers.randint(1, 5)):
        frame = frames[-1].copy()
        patch = noise(1, 1).resize((numbers.randint(1, size[0]), numbers.randint(1, size[1])))
        frame.paste(patch, (numbers.randrange(size[0]), numbers.randrange(size[1])))
        frames.append(numbers.choice((frame, frame, noise(*size))))
    return frames


@dataclass(frozen=True)
class Played:
    """What a reader sees: composed RGBA frames, their durations in ms, and the loop count as the format has it."""

    frames: list[Image.Image]
    durations: list[int]
    loop: int | None


def played(data: bytes) -> Played:
    image = Image.open(BytesIO(data))
    frames, durations = [], []
    for frame in ImageSequence.Iterator(image):
        frames.append(frame.convert("RGBA"))
        durations.append(round(frame.info.get("duration", 0)))
    return Played(frames, durations, image.info.get("loop"))


def visible(image: Image.Image) -> Image.Image:
    """An RGBA image without the colours that nobody sees."""
    seen = Image.new("RGBA", image.size)
    seen.alpha_composite(image.convert("RGBA"))
    return seen


def largest_error(one: Image.Image, other: Image.Image) -> int:
    return max(ImageChops.difference(visible(one), visible(other)).tobytes())


def psnr(one: Image.Image, other: Image.Image) -> float:
    """Of the visible colours, on black."""
    statistics = ImageStat.Stat(ImageChops.difference(visible(one).convert("RGB"), visible(other).convert("RGB")))
    mean = sum(statistics.sum2) / sum(statistics.count)
    return 10 * math.log10(255**2 / mean) if mean else math.inf
