"""GIF: exact or dithered colours, transparency by disposal, times in hundredths of a second."""

import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import pytest
import pyvips
from PIL import Image, ImageChops

from service.imaging.gif import encode_gif
from service.imaging.patches import OPAQUE_FROM
from service.imaging.timing import Timing
from tests.imaging import moving, pictures
from tests.imaging.moving import largest_error, played, psnr, visible

STILL = Timing((0,), plays=1)


def opened(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


def colourful(count: int, mode: str = "RGB") -> Image.Image:
    """A picture of so many colours, some of them neighbours."""
    image = Image.new(mode, (32, 32))
    image.putdata([(n % count, n % count // 2 * 3 % 256, 255 - n % count) for n in range(1024)])
    return image


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17, 128, 129, 255, 256])
def test_a_still_of_at_most_256_colours_keeps_every_pixel(count: int) -> None:
    image = colourful(count)
    assert opened(encode_gif([image], STILL)).convert("RGB").tobytes() == image.tobytes()


@pytest.mark.parametrize("count", [1, 2, 3, 128, 255])
def test_a_transparent_still_keeps_every_pixel_of_at_most_255_colours(count: int) -> None:
    image = colourful(count).convert("RGBA")
    image.paste((9, 9, 9, 127), (0, 0, 32, 8))
    image.putalpha(ImageChops.lighter(image.getchannel("A"), Image.new("L", image.size, 127)))
    read = opened(encode_gif([image], STILL)).convert("RGBA")
    assert read.getchannel("A").tobytes() == image.getchannel("A").point(lambda alpha: 255 * (alpha >= 128)).tobytes()
    assert read.crop((0, 8, 32, 32)).convert("RGB").tobytes() == image.crop((0, 8, 32, 32)).convert("RGB").tobytes()


def test_more_colours_are_dithered() -> None:
    image = pictures.image("RGB", (160, 96))
    read = opened(encode_gif([image], STILL)).convert("RGB")
    assert psnr(image, read) > 24
    # Dithering keeps the mean of an area.
    assert largest_error(image.reduce(8), read.reduce(8)) <= 24


def test_transparency_begins_below_an_alpha_of_128() -> None:
    image = Image.merge("RGBA", [*pictures.image("RGB").split(), Image.linear_gradient("L").resize(pictures.SIZE)])
    alpha = opened(encode_gif([image], STILL)).convert("RGBA").getchannel("A")
    assert alpha.tobytes() == image.getchannel("A").point(lambda value: 255 * (value >= 128)).tobytes()


def test_a_still_is_no_animation() -> None:
    data = encode_gif([pictures.image()], STILL)
    assert b"NETSCAPE" not in data
    assert opened(data).n_frames == 1  # type: ignore[attr-defined]


def test_a_pixel_becomes_transparent_again() -> None:
    frames = moving.sprites(8)
    for frame, shown in zip(frames, played(encode_gif(frames, Timing((40,) * 8))).frames, strict=True):
        opaque = frame.getchannel("A").point(lambda alpha: 255 * (alpha >= 128))
        assert shown.getchannel("A").tobytes() == opaque.tobytes()
        expected = Image.new("RGBA", frame.size)
        expected.paste(frame.convert("RGB"), mask=opaque)
        assert largest_error(expected, shown) == 0


def test_what_is_cleared_becomes_transparent_in_every_reader() -> None:
    """Also where the patch before drew all of its rectangle."""
    full, gone = Image.new("RGBA", (8, 8), "red"), Image.new("RGBA", (8, 8), "red")
    gone.paste((0, 0, 0, 0), (0, 0, 4, 8))
    data = encode_gif([full, gone, full, gone], Timing((40,) * 4))
    assert [largest_error(*pair) for pair in zip([full, gone] * 2, played(data).frames, strict=True)] == [0] * 4
    pages = pyvips.Image.new_from_buffer(data, "", n=-1).write_to_memory()
    assert pages == b"".join(frame.tobytes() for frame in [full, gone] * 2)


def test_what_vanishes_after_an_opaque_frame_is_transparent_in_every_reader() -> None:
    opaque, other, gone = (Image.new("RGBA", (8, 6), colour) for colour in ("red", "lime", "blue"))
    gone.paste((0, 0, 0, 0), (2, 2, 5, 5))
    frames = [opaque, other, gone]
    data = encode_gif(frames, Timing((40,) * 3))
    assert [largest_error(*pair) for pair in zip(frames, played(data).frames, strict=True)] == [0] * 3
    pages = pyvips.Image.new_from_buffer(data, "", n=-1)
    assert pages.write_to_memory() == b"".join(visible(frame).tobytes() for frame in frames)


def test_an_alpha_that_is_nowhere_transparent_takes_no_colour() -> None:
    frames = [colourful(256), ImageChops.offset(colourful(256), 1)]
    for frame in frames:
        frame.putalpha(OPAQUE_FROM)
    shown = played(encode_gif(frames, Timing((40, 40)))).frames
    assert [frame.convert("RGB").tobytes() for frame in shown] == [frame.convert("RGB").tobytes() for frame in frames]


def test_what_does_not_change_is_stored_once() -> None:
    frames = moving.rolled(8)
    alone, ball = encode_gif(frames[:1], STILL), encode_gif(frames, Timing((40,) * 8))
    assert len(ball) < 3 * len(alone)
    shown = played(ball).frames
    still = (60, 50, 96, 64)
    assert all(frame.crop(still).tobytes() == shown[0].crop(still).tobytes() for frame in shown[:3])


def test_256_colours_of_an_animation_stay_exact() -> None:
    first = colourful(256)
    second = first.copy()
    second.paste(first.crop((0, 0, 32, 30)), (0, 2))
    shown = played(encode_gif([first, second], Timing((40, 40)))).frames
    assert [largest_error(first, shown[0]), largest_error(second, shown[1])] == [0, 0]


def test_new_colours_get_a_palette_of_their_own() -> None:
    red, green, blue = pictures.image("RGB", (160, 96)).split()
    dark = green.point(lambda value: value // 4)
    frames = [Image.merge("RGB", (red, blue, dark)), Image.merge("RGB", (dark, blue, red))] * 2
    shown = played(encode_gif(frames, Timing((40,) * 4))).frames
    for frame, other in zip(frames, shown, strict=True):
        assert psnr(frame, other) > psnr(frame, opened(encode_gif([frame], STILL))) - 0.5


@pytest.mark.parametrize(
    ("durations", "expected"),
    [
        ((100, 40), [100, 40]),
        ((15, 15, 15, 15), [20, 10, 20, 10]),
        ((33, 33, 34), [30, 40, 30]),
        ((0, 4, 0), [0, 10, 0]),
        ((1, 1, 1), [10, 10, 10]),
    ],
)
def test_start_times_are_rounded_to_hundredths_of_a_second(durations: tuple[int, ...], expected: list[int]) -> None:
    assert played(encode_gif(moving.rolled(len(durations)), Timing(durations))).durations == expected


def test_a_delay_that_the_format_cannot_hold_is_split() -> None:
    frames = moving.sprites(3)
    read = played(encode_gif(frames, Timing((2_000_000, 655_350, 655_360))))
    assert read.durations == [655_350, 655_350, 655_350, 33_950, 655_350, 655_350, 10]
    assert [largest_error(read.frames[n], read.frames[0]) for n in range(4)] == [0] * 4
    assert largest_error(read.frames[4], read.frames[0]) > 0
    assert largest_error(read.frames[5], read.frames[6]) == 0


@pytest.mark.skipif(shutil.which("gifsicle") is None, reason="gifsicle is not installed")
def test_gifsicle_finds_nothing_wrong(tmp_path: Path) -> None:
    for number, frames in enumerate([moving.panned(5), moving.rolled(5), moving.sprites(5)]):
        path = tmp_path / f"{number}.gif"
        path.write_bytes(encode_gif(frames, Timing((40,) * 5, plays=4), b"<x/>"))
        answer = subprocess.run(["gifsicle", "--info", "--warnings", path], capture_output=True, text=True, check=True)
        assert "5 images" in answer.stdout
        assert "loop count 3" in answer.stdout
        assert answer.stderr == ""
