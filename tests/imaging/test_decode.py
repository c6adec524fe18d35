import zlib
from collections.abc import Callable
from functools import partial
from struct import pack

import pytest
import pyvips
from PIL import Image

from service.imaging.decode import decode
from service.imaging.errors import Undecodable
from service.imaging.probe import probe
from tests.imaging import icc, pictures
from tests.imaging.pictures import GREY, GREY_ALPHA, PALETTE, RGB, RGB_ALPHA, chunk

LIMIT = 40_000_000

# Makes a picture, when its test runs.
Make = Callable[[], bytes]


def decoded(data: bytes) -> Image.Image:
    return decode(probe(data, LIMIT))


@pytest.mark.parametrize(
    ("make", "mode"),
    [
        (lambda: pictures.png(1, GREY), "L"),
        (lambda: pictures.png(4, GREY), "L"),
        (lambda: pictures.png(8, GREY), "L"),
        (lambda: pictures.png(16, GREY), "I;16"),
        (lambda: pictures.png(16, GREY, transparency=b"\0\0"), "LA"),
        (lambda: pictures.png(2, GREY, transparency=b"\0\0"), "LA"),
        (lambda: pictures.png(8, GREY_ALPHA), "LA"),
        (lambda: pictures.png(16, GREY_ALPHA), "LA"),
        (lambda: pictures.png(8, RGB), "RGB"),
        (lambda: pictures.png(8, RGB, transparency=bytes(6)), "RGBA"),
        (lambda: pictures.png(16, RGB), "RGB"),
        (lambda: pictures.png(8, RGB_ALPHA), "RGBA"),
        (lambda: pictures.png(8, PALETTE), "RGB"),
        (lambda: pictures.png(8, PALETTE, transparency=b"\0\x80"), "RGBA"),
        (lambda: pictures.png(1, PALETTE, transparency=b"\xff\0"), "RGBA"),
        (lambda: pictures.jpeg("L"), "L"),
        (lambda: pictures.jpeg("RGB"), "RGB"),
        (lambda: pictures.jpeg("CMYK"), "CMYK"),
        (lambda: pictures.webp("RGB"), "RGB"),
        (lambda: pictures.webp("RGBA"), "RGBA"),
    ],
)
def test_every_kind_of_picture_decodes_to_one_of_few_modes(make: Make, mode: str) -> None:
    image = decoded(make())
    assert (image.mode, image.size) == (mode, pictures.SIZE)
    assert type(image) is Image.Image


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_grey_key_is_transparent_at_any_depth(depth: int) -> None:
    levels = [level for line in pictures.samples(depth, GREY, pictures.SIZE) for level in line]
    key = levels[1000]
    image = decoded(pictures.png(depth, GREY, transparency=key.to_bytes(2)))
    assert image.getchannel("A").tobytes() == bytes(0 if level == key else 255 for level in levels)
    assert max(image.getchannel("L").tobytes()) == round(max(levels) * 255 / (2**depth - 1))


def test_a_transparent_colour_of_16_bits_is_compared_in_all_of_them() -> None:
    colours = [(0x1234, 0x5678, 0x9ABC), (0x1235, 0x5678, 0x9ABC), (0x1234, 0x5678, 0x9ABB), (0x1334, 0x5678, 0x9ABC)]
    row = b"\0" + b"".join(pack(">3H", *colour) for colour in colours)
    image = decoded(pictures.png_of((4, 1), 16, RGB, [chunk(b"tRNS", pack(">3H", *colours[0]))], row))
    assert list(image.getchannel("A").tobytes()) == [0, 255, 255, 255]


def test_a_decoded_image_has_no_metadata() -> None:
    text = chunk(b"tEXt", b"Comment\0secret") + chunk(b"pHYs", bytes(9))
    for data in (
        pictures.png(8, RGB_ALPHA, profile=icc.SRGB, orientation=6, extra=text),
        pictures.jpeg(profile=icc.SRGB, orientation=6, comment=b"secret"),
        pictures.webp(profile=icc.SRGB, orientation=6),
    ):
        assert decoded(data).info == {}


@pytest.mark.parametrize("make", [lambda: pictures.png(8, RGB), pictures.jpeg, pictures.webp])
def test_a_cut_file_is_undecodable(make: object) -> None:
    assert callable(make)
    data = make()
    with pytest.raises(Undecodable, match="broken or cut"):
        decoded(data[: len(data) // 2])


def test_a_png_cut_within_its_last_chunk_has_all_its_pixels() -> None:
    assert decoded(pictures.png(8, RGB)[:-3]).tobytes() == pictures.image().tobytes()


def test_a_flipped_byte_in_the_pixels_of_a_png_is_undecodable() -> None:
    data = bytearray(pictures.png(8, RGB))
    data[data.index(b"IDAT") + 40] ^= 0xFF
    with pytest.raises(Undecodable):
        decoded(bytes(data))


def test_an_animated_png_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")]
    data = pictures.saved(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=100)
    assert decoded(data).getcolors() == [(64, (255, 0, 0))]


def test_an_animated_webp_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")]
    data = pictures.saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert decoded(data).convert("RGB").getcolors() == [(64, (255, 0, 0))]


def test_several_pictures_in_a_jpeg_are_its_first() -> None:
    pair = [pictures.image(), Image.new("RGB", (8, 8), "blue")]
    data = pictures.saved(pair[0], "MPO", save_all=True, append_images=pair[1:])
    assert decoded(data).size == pictures.SIZE


def test_ink_is_not_mistaken_for_paper() -> None:
    for data in (pictures.jpeg("CMYK"), pictures.without_adobe(pictures.jpeg("CMYK"))):
        assert decoded(data).resize((1, 1)).getpixel((0, 0)) == pytest.approx(
            pictures.image().convert("CMYK").resize((1, 1)).getpixel((0, 0)), abs=3
        )


@pytest.mark.parametrize("size", [(1, 1), (16_384, 10), (10, 16_383)])
def test_extreme_shapes_are_decoded(size: tuple[int, int]) -> None:
    for name in ("PNG", "JPEG", "WEBP"):
        if name != "WEBP" or max(size) < 16_384:
            assert decoded(pictures.saved(Image.new("RGB", size), name)).size == size


def interlaced() -> bytes:
    picture = pyvips.Image.new_from_buffer(pictures.png(8, RGB), "")
    data: bytes = picture.pngsave_buffer(interlace=True)
    return data


@pytest.mark.parametrize(
    "make",
    [
        *(
            partial(pictures.png, depth, colour)
            for depth, colour in ((1, GREY), (16, GREY), (4, PALETTE), (8, RGB), (16, RGB))
        ),
        interlaced,
    ],
)
def test_pixels_are_the_same_with_either_zlib(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make()
    ours = decoded(data)
    monkeypatch.setattr("service.imaging.decode._INFLATED_BYTES", 0)
    assert (ours.mode, ours.tobytes()) == (decoded(data).mode, decoded(data).tobytes())


@pytest.mark.parametrize(
    "stream", [lambda rows: zlib.compress(rows + bytes(999)), lambda rows: zlib.compress(rows) + b"x"]
)
def test_rows_after_the_last_and_bytes_after_the_stream_are_ignored(stream: Callable[[bytes], bytes]) -> None:
    image = pictures.image("RGB")
    rows = b"".join(b"\0" + image.crop((0, top, image.width, top + 1)).tobytes() for top in range(image.height))
    data = pictures.saved(image, "PNG")[:33] + chunk(b"IDAT", stream(rows)) + chunk(b"IEND", b"")
    assert decoded(data).tobytes() == image.tobytes()
