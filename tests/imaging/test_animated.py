"""Animations in every format: frames, times, plays and marks, as other programs read them."""

from io import BytesIO

import pytest
import pyvips
from PIL import Image

from service.imaging.animated import encode_animation
from service.imaging.formats import AvifEncoding, Encoding, GifEncoding, JpegEncoding, PngEncoding, WebpEncoding
from service.imaging.provenance import COMPOSITE, mark_of
from service.imaging.timing import Timing
from tests.imaging import moving
from tests.imaging.moving import largest_error, played, psnr

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
