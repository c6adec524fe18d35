"""Animations in every format: frames, times, plays and marks, as other programs read them."""

import json
import random
import shutil
import subprocess
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import pytest
import pyvips
from PIL import Image

from service.imaging.animated import encode_animation
from service.imaging.compose import composed
from service.imaging.formats import AvifEncoding, Encoding, GifEncoding, JpegEncoding, PngEncoding, WebpEncoding
from service.imaging.probe import probe
from service.imaging.provenance import COMPOSITE, mark_of
from service.imaging.timing import Timing
from tests.imaging import moving
from tests.imaging.moving import largest_error, played, psnr, visible

WHITE = (255, 255, 255)
ANIMATED: list[Encoding] = [
    PngEncoding(),
    PngEncoding(compression=2, palette=True),
    WebpEncoding(),
    WebpEncoding(lossless=True),
    AvifEncoding(),
    GifEncoding(),
]
LOSSLESS = [encoding for encoding in ANIMATED if encoding.format == "png" or encoding == WebpEncoding(lossless=True)]
TIMES = (100, 40, 70, 1000, 10, 20)


def encoded(frames: list[Image.Image], encoding: Encoding, timing: Timing | None = None) -> bytes:
    return encode_animation(frames, timing or Timing((100,) * len(frames)), encoding, WHITE)


def still(frame: Image.Image, encoding: Encoding) -> Image.Image:
    return Image.open(BytesIO(encoded([frame], encoding)))


@pytest.mark.parametrize("encoding", ANIMATED)
@pytest.mark.parametrize("scene", [moving.panned, moving.rolled, moving.sprites, moving.drawn])
def test_every_frame_is_there_with_its_time(encoding: Encoding, scene: moving.Scene) -> None:
    frames = scene(len(TIMES))
    read = played(encoded(frames, encoding, Timing(TIMES, plays=3)))
    assert read.durations == list(TIMES)
    for frame, shown in zip(frames, read.frames, strict=True):
        if encoding in LOSSLESS:
            assert largest_error(frame, shown) == 0
        elif encoding.format != "gif" or frame.mode == "RGB":
            assert psnr(frame, shown) >= min(30, psnr(frame, still(frame, encoding)) - 1)


@pytest.mark.parametrize(("plays", "gif", "others"), [(0, 0, 0), (1, None, 1), (2, 1, 2), (65535, 65534, 65535)])
def test_plays_are_kept(plays: int, gif: int | None, others: int) -> None:
    frames, timing = moving.rolled(2), Timing((10, 10), plays)
    assert played(encoded(frames, GifEncoding(), timing)).loop == gif
    for encoding in (PngEncoding(), WebpEncoding()):
        assert played(encoded(frames, encoding, timing)).loop == others


@pytest.mark.parametrize("encoding", ANIMATED)
def test_libvips_reads_the_same_pages(encoding: Encoding) -> None:
    if encoding.format in ("png", "avif"):
        pytest.skip("libvips reads the first frame only")
    data = encoded(moving.rolled(4), encoding, Timing((100, 40, 70, 80), plays=3))
    image = pyvips.Image.new_from_buffer(data, "", n=-1)
    assert image.get("n-pages") == 4
    assert image.get("page-height") == moving.SIZE[1]
    assert image.get("delay") == [100, 40, 70, 80]
    assert image.get("loop") == 3


@pytest.mark.parametrize("encoding", [*ANIMATED, JpegEncoding()])
def test_one_frame_is_a_still(encoding: Encoding) -> None:
    [frame] = moving.rolled(1)
    image = Image.open(BytesIO(encoded([frame], encoding)))
    assert getattr(image, "n_frames", 1) == 1
    assert not getattr(image, "is_animated", False)
    assert image.info.get("duration", 0) == 0


def test_a_jpeg_has_the_first_frame() -> None:
    first, *rest = moving.rolled(3)
    assert encoded([first, *rest], JpegEncoding()) == encoded([first], JpegEncoding())


@pytest.mark.parametrize("encoding", ANIMATED)
def test_the_mark_is_in_every_format(encoding: Encoding) -> None:
    timing = Timing((100, 100))
    marked, plain = (encode_animation(moving.rolled(2), timing, encoding, WHITE, mark) for mark in (COMPOSITE, None))
    assert mark_of(marked) == COMPOSITE
    assert mark_of(plain) is None


@pytest.mark.parametrize("encoding", ANIMATED)
def test_equal_input_is_equal_output(encoding: Encoding) -> None:
    frames = moving.sprites(3)
    assert encoded(frames, encoding) == encoded(frames, encoding)


@pytest.mark.parametrize("encoding", [PngEncoding(), WebpEncoding(), GifEncoding()])
def test_equal_successive_frames_are_one_for_the_sum_of_their_times(encoding: Encoding) -> None:
    one, two = moving.rolled(2)
    read = played(encoded([one, one.copy(), two, two, two], encoding, Timing((10, 20, 30, 40, 50))))
    assert read.durations == [30, 120]


@pytest.mark.parametrize("encoding", ANIMATED)
def test_files_carry_nothing_of_the_frames_metadata(encoding: Encoding) -> None:
    frames = moving.rolled(2)
    expected = encoded(frames, encoding)
    frames[0].info = {
        "comment": b"secret",
        "xmp": b"secret",
        "background": 3,
        "duration": 7,
        "loop": 9,
        "version": b"x",
    }
    assert encoded(frames, encoding) == expected


def merged(frames: Iterable[Image.Image], durations: Iterable[int]) -> list[tuple[bytes, int]]:
    """What is visible, and how long."""
    found: list[tuple[bytes, int]] = []
    for frame, duration in zip(frames, durations, strict=True):
        pixels = visible(frame).tobytes()
        before = found.pop()[1] if found and found[-1][0] == pixels else 0
        found.append((pixels, before + duration))
    return found


@pytest.mark.parametrize("encoding", [*LOSSLESS, GifEncoding()])
@pytest.mark.parametrize("seed", range(12))
def test_random_animations_come_back_exactly(encoding: Encoding, seed: int) -> None:
    numbers = random.Random(seed)
    frames = moving.random_frames(numbers)
    durations = tuple(numbers.choices((0, 10, 50, 70_000, 700_000, 20_000_000), k=len(frames)))
    data = encoded(frames, encoding, Timing(durations, plays=2))
    expected, read = merged(frames, durations), played(data)
    # Pillow shows no duration of an animation of one frame.
    assert merged(read.frames, read.durations) == expected or len(expected) == 1
    animation = probe(data, 10**6).animation
    assert animation is None or merged(composed(animation), animation.timing.durations) == expected


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_exiftool_reads_the_mark_and_finds_nothing_wrong(tmp_path: Path) -> None:
    for number, encoding in enumerate(ANIMATED):
        data = encode_animation(moving.sprites(2), Timing((40, 40)), encoding, WHITE, COMPOSITE)
        (tmp_path / f"{number}.{encoding.format}").write_bytes(data)
    command = ["exiftool", "-json", "-XMP:all", "-Warning", "-Error", str(tmp_path)]
    tags = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert len(tags) == len(ANIMATED)
    for found in tags:
        assert found.pop("DigitalSourceType").endswith("/" + COMPOSITE)
        assert set(found) == {"SourceFile"}
