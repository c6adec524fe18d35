"""Animated pictures to upload, in plain colours, and what a decoder reads from a file."""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from tests.imaging.animations import Film, Layer, apng, plain

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
COLOURS = (RED, GREEN, BLUE)

Colour = tuple[int, ...]


def animation(
    kind: str,
    colours: Sequence[Colour] = COLOURS,
    size: tuple[int, int] = (64, 36),
    duration: int | list[int] = 100,
    plays: int = 0,
    **options: object,
) -> bytes:
    """Frames of one colour each, as Pillow writes them; `plays` 0: for ever."""
    first, *others = (Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour) for colour in colours)
    out = io.BytesIO()
    if kind == "GIF" and plays != 1:
        options["loop"] = max(0, plays - 1)
    elif kind != "GIF":
        options["loop"] = plays
    first.save(out, kind, save_all=True, append_images=others, duration=duration, **options)
    return out.getvalue()


def long_gif(frames: int, size: tuple[int, int] = (1, 1), delay: int = 1) -> bytes:
    """A GIF of so many frames, each a single black pixel; only the first has the size of the canvas."""
    width, height = size
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    one = b"\x21\xf9\x04\x04" + struct.pack("<H", delay) + b"\0\0" + b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0)
    return head + frames * (one + b"\x02\x02\x44\x01\x00") + b"\x3b"


def hidden_default(size: tuple[int, int] = (64, 36)) -> bytes:
    """An APNG whose default image, in white, is no frame of the animation."""
    return apng(Film(size, [Layer(plain(size, (*colour, 255))) for colour in COLOURS]), default=plain(size, "white"))


@dataclass(frozen=True)
class Shown:
    """What Pillow reads from an animation: the middle pixel and the milliseconds of each frame, and the loop count."""

    kind: str | None
    size: tuple[int, int]
    colours: list[Colour]
    durations: list[int]
    loop: int | None


def shown(data: bytes) -> Shown:
    with Image.open(io.BytesIO(data)) as image:
        colours: list[Colour] = []
        durations = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            pixel = image.convert("RGBA").getpixel((image.width // 2, image.height // 2))
            assert isinstance(pixel, tuple)
            colours.append(pixel[:3])
            durations.append(round(image.info.get("duration", 0)))
        return Shown(image.format, image.size, colours, durations, image.info.get("loop"))
