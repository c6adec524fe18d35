"""The blocks of a GIF are read as browsers do; what the specification leaves open was seen in Chromium 156."""

import struct
from collections.abc import Sequence

import pytest
from PIL import Image

from service.imaging.compose import composed
from service.imaging.containers.animation import Animation
from service.imaging.decode import decode
from service.imaging.errors import TooCostly, TooManyPixels, Undecodable
from service.imaging.probe import probe
from service.imaging.provenance import MAX_XMP_BYTES, packet
from tests.imaging import pictures
from tests.imaging.animations import Film, Layer, Pixel, gif, gif_frame, gif_loops, lzw, plain

LIMIT = 1_000_000
SCREEN = (8, 8)
RED, LIME, BLUE, YELLOW, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 0, 0)
TABLE = bytes((*RED, *LIME, *BLUE, *YELLOW))
FOUR = [number % 4 for number in range(64)]
CLEAR: Pixel = (0, 0, 0, 0)


def header(screen: tuple[int, int] = SCREEN, table: bytes = b"", background: int = 0, version: bytes = b"89a") -> bytes:
    flags = 0x80 | (len(table) // 3).bit_length() - 2 if table else 0
    return struct.pack("<3s3sHHBBB", b"GIF", version, *screen, flags, background, 0) + table


def control(packing: int = 0, hundredths: int = 7, key: int = 0) -> bytes:
    return b"!\xf9\x04" + struct.pack("<BHBB", packing, hundredths, key, 0)


def image(
    indices: Sequence[int] = FOUR, size: tuple[int, int] = SCREEN, table: bytes = TABLE, pixels: bytes | None = None
) -> bytes:
    flags = 0x80 | (len(table) // 3).bit_length() - 2 if table else 0
    place = struct.pack("<HHHHB", 0, 0, *size, flags)
    return b"," + place + table + (lzw(indices) if pixels is None else pixels)


def layer(colour: str, size: tuple[int, int] = SCREEN, left: int = 0, top: int = 0) -> bytes:
    return gif_frame(Layer(plain(size, colour), left, top))


def animation_of(data: bytes) -> Animation:
    animation = probe(data, LIMIT).animation
    assert animation is not None
    return animation


def frames(data: bytes) -> list[Image.Image]:
    return [frame.convert("RGBA") for frame in composed(animation_of(data))]


def first(data: bytes) -> Image.Image:
    return decode(probe(data, LIMIT))


def pixel(picture: Image.Image, x: int, y: int = 0) -> Pixel:
    found: Pixel = picture.convert("RGBA").getpixel((x, y))  # type: ignore[assignment]  # a tuple, in RGBA
    return found


# -- Sizes -------------------------------------------------------------------------------------------------------------


def test_the_canvas_is_the_logical_screen_whatever_the_first_frame_is() -> None:
    small = header() + layer("red", (3, 3), 4, 1) + b";"
    assert probe(small, LIMIT).size == first(small).size == SCREEN
    assert (pixel(first(small), 4, 1), pixel(first(small), 3, 1)) == ((*RED, 255), CLEAR)
    large = header() + layer("red", (20, 20)) + layer("lime") + b";"
    assert [frame.size for frame in frames(large)] == [SCREEN, SCREEN]
    assert first(large).size == SCREEN


@pytest.mark.parametrize("screen", [(0, 0), (0, 8), (8, 0)])
def test_a_logical_screen_without_size_is_that_of_the_first_frame(screen: tuple[int, int]) -> None:
    data = header(screen) + layer("red", (6, 4)) + layer("lime", (8, 8)) + b";"
    assert [frame.size for frame in frames(data)] == [(6, 4), (6, 4)]


def test_a_frame_without_size_draws_nothing() -> None:
    data = header() + layer("red") + control() + image((), (0, 5)) + layer("lime", (2, 2)) + b";"
    assert [pixel(frame, 0) for frame in frames(data)] == [(*RED, 255), (*RED, 255), (*LIME, 255)]
    assert pixel(first(header() + image((), (0, 0)) + b";"), 0) == CLEAR
    with pytest.raises(Undecodable, match="no size"):
        probe(header((0, 0)) + image((), (0, 0)) + b";", LIMIT)


def test_a_frame_outside_the_canvas_is_shown_as_nothing() -> None:
    data = header() + layer("red") + layer("lime", (8, 8), 400, 400) + b";"
    assert [pixel(frame, 7, 7) for frame in frames(data)] == [(*RED, 255)] * 2


def test_the_rectangle_of_any_frame_counts_like_a_picture() -> None:
    huge = image((), (65_535, 65_535))
    for data in (header() + huge, header() + layer("red") + huge + b";", header((65_535, 65_535)) + layer("red")):
        with pytest.raises(TooManyPixels, match="65535 x 65535, 4,294,836,225 pixels; at most 1,000,000"):
            probe(data, LIMIT)


# -- Colours -----------------------------------------------------------------------------------------------------------


def test_without_a_table_of_colours_everything_is_black() -> None:
    assert first(header() + image(range(64), table=b"") + b";").getcolors() == [(64, BLACK)]


def test_colours_beyond_the_table_are_black() -> None:
    picture = first(header() + image(range(64)) + b";")
    assert [pixel(picture, x)[:3] for x in range(6)] == [RED, LIME, BLUE, YELLOW, BLACK, BLACK]


def test_an_index_beyond_the_table_may_be_the_transparent_one() -> None:
    picture = first(header() + control(1, 7, 200) + image([200, 1, 4, *FOUR[3:]]) + b";")
    assert [pixel(picture, x) for x in range(3)] == [CLEAR, (*LIME, 255), (*BLACK, 255)]


def test_a_frame_without_a_table_has_the_global_one() -> None:
    data = header(table=TABLE) + image(table=b"") + image(table=TABLE[::-1]) + b";"
    one, other = frames(data)
    assert (pixel(one, 0)[:3], pixel(other, 0)[:3]) == (RED, (0, 255, 255))


def test_the_canvas_is_transparent_whatever_the_background_index() -> None:
    data = header(table=TABLE, background=1) + layer("red", (4, 4), 2, 2) + b";"
    assert pixel(first(data), 0) == CLEAR


def test_a_table_of_greys_is_a_table() -> None:
    greys = bytes(level for level in (0, 255) for _ in range(3))
    picture = first(header() + image([0, 1] * 32, table=greys) + b";")
    assert [pixel(picture, x)[:3] for x in range(2)] == [BLACK, (255, 255, 255)]


# -- Times -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loops", "plays"),
    [
        (b"", 1),
        (gif_loops(0), 0),
        (gif_loops(1), 2),
        (gif_loops(65_535), 65_536),
        (gif_loops(4, b"ANIMEXTS1.0"), 5),
        (gif_loops(4) + gif_loops(9), 10),
        (gif_loops(4, b"netscape2.0"), 1),
        (b"!\xff\x0bNETSCAPE2.0\x03\x02\x05\0\0", 1),
        (b"!\xff\x0bNETSCAPE2.0\0", 1),
        (b"!\xff\0", 1),
    ],
    ids=["none", "for ever", "one more", "most", "animexts", "the last", "other name", "buffering", "empty", "no name"],
)
def test_the_loop_extension_says_how_often_it_is_repeated(loops: bytes, plays: int) -> None:
    before = header() + loops + layer("red") + layer("lime") + b";"
    behind = header() + layer("red") + layer("lime") + loops + b";"
    assert animation_of(before).timing.plays == animation_of(behind).timing.plays == plays


def test_durations_are_hundredths_of_a_second_and_may_be_0() -> None:
    times = (0, 1, 2, 65_535)
    data = header() + b"".join(control(hundredths=each) + image() for each in times) + image() + b";"
    assert animation_of(data).timing.durations == (0, 10, 20, 655_350, 0)


def test_of_several_control_extensions_the_last_before_an_image_counts() -> None:
    text = b"!\x01\x0c" + bytes(12) + b"\x01a\0"
    data = header() + layer("red") + control(0, 50) + control(1 | 2 << 2, 20, 1) + text + image() + image() + b";"
    animation = animation_of(data)
    assert animation.timing.durations == (70, 200, 0)
    assert [cel.disposal for cel in animation.cels] == ["keep", "background", "keep"]


def test_disposals_have_the_codes_of_the_specification_and_4_is_3() -> None:
    data = header() + b"".join(control(code << 2) + image() for code in range(8)) + b";"
    disposals = [cel.disposal for cel in animation_of(data).cels]
    assert disposals == ["keep", "keep", "background", "previous", "previous", "keep", "keep", "keep"]


def test_an_older_version_may_have_extensions() -> None:
    data = header(version=b"87a") + gif_loops(0) + layer("red") + layer("lime") + b";"
    assert probe(data, LIMIT).frames == 2


# -- Cut and broken ----------------------------------------------------------------------------------------------------

TWO = header() + layer("red") + layer("lime")


@pytest.mark.parametrize("end", [b";", b"", b"rubbish", b"\0" + layer("blue"), b";" + layer("blue")])
def test_what_is_no_block_ends_the_file(end: bytes) -> None:
    assert [pixel(frame, 0)[:3] for frame in frames(TWO + end)] == [RED, LIME]


@pytest.mark.parametrize("cut", [1, 2, 5, 11, 60, 700, 790])
def test_a_file_that_ends_within_a_block_shows_its_first_frame_only(cut: int) -> None:
    data = (TWO + layer("blue"))[:-cut]
    assert pixel(first(data), 0)[:3] == RED
    with pytest.raises(Undecodable, match="cut"):
        frames(data)


def test_a_file_that_ends_within_its_first_frame_is_undecodable() -> None:
    data = header() + layer("red")
    for end in range(6, len(data)):
        with pytest.raises(Undecodable):
            first(data[:end])


@pytest.mark.parametrize(
    "pixels",
    [lzw(FOUR[:40]), lzw(FOUR)[:1] + b"\0", b"\x08\xff" + b"\xff" * 255 + b"\0", b"\0" + lzw(FOUR)[1:]],
    ids=["too few", "none", "invalid codes", "no size of codes"],
)
def test_pixels_that_are_missing_or_invalid_are_undecodable(pixels: bytes) -> None:
    with pytest.raises(Undecodable):
        first(header() + image(pixels=pixels) + b";")
    with pytest.raises(Undecodable):
        frames(header() + image() + image(pixels=pixels) + b";")


@pytest.mark.parametrize("bits", [0, 9, 10, 12, 13, 255])
def test_codes_of_a_size_that_does_not_exist_are_undecodable(bits: int) -> None:
    with pytest.raises(Undecodable):
        first(header() + image(pixels=bytes((bits,)) + lzw(FOUR)[1:]) + b";")


def test_more_pixels_than_the_frame_has_are_ignored() -> None:
    assert pixel(first(header() + image(FOUR * 2) + b";"), 1)[:3] == LIME


def test_a_file_without_an_image_is_undecodable() -> None:
    for data in (header() + b";", header(), header() + gif_loops(0) + b";"):
        with pytest.raises(Undecodable, match="no image"):
            probe(data, LIMIT)


# -- Parts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [b"!\xfe\0", b",\0\0\0\0\1\0\1\0\0\2\0"], ids=["comment", "image"])
def test_very_many_images_or_extensions_are_too_costly(part: bytes) -> None:
    with pytest.raises(TooCostly, match="65,536 parts"):
        probe(header() + layer("red") + part * 65_536, LIMIT)


def test_as_many_parts_as_the_limit_are_accepted() -> None:
    assert probe(header() + layer("red") + b"!\xfe\0" * 65_534, LIMIT).size == SCREEN


def test_sub_blocks_are_no_parts() -> None:
    comment = b"!\xfe" + b"\1a" * 1_000_000 + b"\0"
    loops = b"!\xff\x0bNETSCAPE2.0" + b"\3\1\4\0" + b"\1a" * 1_000_000 + b"\0"
    animation = animation_of(header() + comment + loops + layer("red") + layer("lime") + b";")
    assert animation.timing.plays == 5


def test_frames_are_counted_and_a_still_is_no_animation() -> None:
    assert probe(header() + layer("red") + b";", LIMIT).animation is None
    film = Film(SCREEN, [Layer(plain(SCREEN, "red"))] * 5)
    assert probe(gif(film), LIMIT).frames == 5


# -- Metadata ----------------------------------------------------------------------------------------------------------

GENERATED = packet("trainedAlgorithmicMedia")


def xmp(body: bytes) -> bytes:
    """Not in sub-blocks, and followed by bytes that lead any reader of sub-blocks to their end."""
    return b"!\xff\x0bXMP DataXMP" + body + b"\1" + bytes(range(255, -1, -1)) + b"\0"


def test_the_mark_is_found_in_the_first_xmp_packet() -> None:
    marked = header() + xmp(GENERATED) + layer("red") + b";"
    assert probe(marked, LIMIT).mark == "trainedAlgorithmicMedia"
    assert probe(header() + layer("red") + xmp(GENERATED) + b";", LIMIT).mark == "trainedAlgorithmicMedia"
    assert probe(header() + xmp(b"<a/>") + xmp(GENERATED) + layer("red") + b";", LIMIT).mark is None
    assert probe(header() + xmp(GENERATED.ljust(MAX_XMP_BYTES + 1)) + layer("red") + b";", LIMIT).mark is None
    assert pixel(first(marked), 0)[:3] == RED


def test_a_c2pa_manifest_is_told_by_its_extension() -> None:
    manifest = b"!\xff\x0bC2PA_GIF\1\0\0" + b"\3abc\0"
    assert probe(header() + manifest + layer("red") + b";", LIMIT).c2pa
    assert not probe(header() + gif_loops(1) + layer("red") + b";", LIMIT).c2pa


def test_a_gif_of_pillow_is_read() -> None:
    picture = first(pictures.gif())
    assert picture.size == pictures.SIZE
    assert picture.mode == "RGB"
