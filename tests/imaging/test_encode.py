import random
import struct
from io import BytesIO
from itertools import pairwise

import pytest
from PIL import Image, ImageChops, ImageStat

from service.imaging.encode import encode
from service.imaging.formats import AvifEncoding, Encoding, JpegEncoding, PngEncoding, Subsampling, WebpEncoding
from service.imaging.profiles import srgb
from service.imaging.provenance import packet
from tests.imaging import pictures

WHITE = (255, 255, 255)
TAGS = ("icc_profile", "srgb")
EVERY: list[Encoding] = [
    PngEncoding(),
    PngEncoding(compression=0),
    JpegEncoding(),
    JpegEncoding(progressive=True),
    WebpEncoding(),
    WebpEncoding(lossless=True),
    AvifEncoding(),
]


def opened(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


def png_chunks(data: bytes) -> list[bytes]:
    kinds, position = [], 8
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        kinds.append(kind)
        position += 12 + length
    return kinds


@pytest.mark.parametrize("encoding", EVERY)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_every_file_is_of_its_format_and_tagged_as_srgb(encoding: Encoding, mode: str) -> None:
    image = opened(encode(pictures.image(mode), encoding, WHITE))
    assert image.format == encoding.format.upper()
    assert image.size == pictures.SIZE
    assert image.info.get("icc_profile") == (srgb() if encoding.format in ("jpeg", "webp") else None)
    assert image.info.get("srgb") == (0 if encoding.format == "png" else None)


def test_the_profile_is_small_and_always_the_same() -> None:
    assert len(srgb()) == 388
    assert srgb()[24:36] == struct.pack(">6H", 2000, 1, 1, 0, 0, 0)


def test_files_carry_nothing_else() -> None:
    image = pictures.image("RGBA")
    image.info = {"comment": b"secret", "exif": b"Exif\0\0secret", "xmp": b"secret", "dpi": (72, 72), "gamma": 0.5}
    image.info = {}
    png, jpeg, webp = (encode(image, encoding, WHITE) for encoding in (PngEncoding(), JpegEncoding(), WebpEncoding()))
    assert png_chunks(png) == [b"IHDR", b"sRGB", b"IDAT", b"IEND"]
    assert {segment[0] for segment in opened(jpeg).applist} == {"APP0", "APP2"}  # type: ignore[attr-defined]  # of JPEG files
    assert not opened(jpeg).getexif()
    assert b"EXIF" not in webp
    assert b"XMP " not in webp


@pytest.mark.parametrize("encoding", EVERY)
def test_a_marked_file_has_the_same_pixels_and_tag_and_an_xmp_packet(encoding: Encoding) -> None:
    plain, marked = (
        opened(encode(pictures.image(), encoding, WHITE, mark)) for mark in (None, "trainedAlgorithmicMedia")
    )
    assert marked.info["xmp"] == packet("trainedAlgorithmicMedia")
    assert "xmp" not in plain.info
    assert [marked.info.get(tag) for tag in TAGS] == [plain.info.get(tag) for tag in TAGS]
    assert marked.tobytes() == plain.tobytes()


def test_the_packet_of_a_png_is_before_its_pixels_and_after_its_colour_tag() -> None:
    data = encode(pictures.image(), PngEncoding(palette=True), WHITE, "trainedAlgorithmicMedia")
    assert png_chunks(data)[1:3] == [b"sRGB", b"iTXt"]


def test_png_keeps_every_pixel_and_its_transparency() -> None:
    image = pictures.image("RGBA")
    assert opened(encode(image, PngEncoding(), WHITE)).tobytes() == image.tobytes()


def test_more_compression_makes_a_smaller_png() -> None:
    sizes = [len(encode(pictures.image(), PngEncoding(compression=level), WHITE)) for level in (0, 1, 9)]
    assert sizes == sorted(sizes, reverse=True)


def test_jpeg_shows_transparency_over_the_matte() -> None:
    image = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    assert opened(encode(image, JpegEncoding(), (0, 0, 255))).getpixel((9, 9)) == (0, 0, 254)


@pytest.mark.parametrize("encoding", [JpegEncoding, WebpEncoding, AvifEncoding])
def test_more_quality_makes_a_larger_file(encoding: type[JpegEncoding | WebpEncoding | AvifEncoding]) -> None:
    sizes = [len(encode(pictures.image(), encoding(quality=quality), WHITE)) for quality in (0, 1, 30, 60, 90, 100)]
    assert all(small <= large for small, large in pairwise(sizes))
    assert sizes[0] < sizes[-1]


@pytest.mark.parametrize("progressive", [False, True])
def test_progressive_is_as_asked(progressive: bool) -> None:
    image = opened(encode(pictures.image(), JpegEncoding(progressive=progressive), WHITE))
    assert bool(image.info.get("progressive")) is progressive


@pytest.mark.parametrize("quality", [85, 94, 95, 100])
def test_a_progressive_jpeg_of_noise_is_whole(quality: int) -> None:
    noise = Image.frombytes("RGB", (300, 200), random.Random(1).randbytes(180_000))
    image = opened(encode(noise, JpegEncoding(quality, progressive=True, subsampling="4:4:4"), WHITE))
    assert (image.size, image.info["progressive"]) == ((300, 200), 1)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("width", [1, 2, 9, 10])
def test_a_jpeg_of_narrow_noise_is_whole(width: int, progressive: bool) -> None:
    extremes = bytes(random.Random(width).choices((0, 255), k=3 * width * 8192))
    noise = Image.frombytes("RGB", (width, 8192), extremes)
    encoding = JpegEncoding(100, progressive=progressive, subsampling="4:4:4")
    assert opened(encode(noise, encoding, WHITE)).size == (width, 8192)


def test_the_huffman_tables_of_a_jpeg_are_optimized_up_to_a_number_of_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = encode(pictures.image(), JpegEncoding(), WHITE)
    monkeypatch.setattr("service.imaging.encode.OPTIMIZED_PIXELS", 0)
    plain = encode(pictures.image(), JpegEncoding(), WHITE)
    assert len(small) < len(plain)
    assert opened(small).tobytes() == opened(plain).tobytes()


@pytest.mark.parametrize(("subsampling", "factors"), [("4:2:0", (2, 2)), ("4:2:2", (2, 1)), ("4:4:4", (1, 1))])
@pytest.mark.parametrize("quality", [85, 100])
def test_subsampling_is_as_asked(subsampling: Subsampling, factors: tuple[int, int], quality: int) -> None:
    image = opened(encode(pictures.image(), JpegEncoding(quality=quality, subsampling=subsampling), WHITE))
    assert image.layer[0][1:3] == factors  # type: ignore[attr-defined]  # of JPEG files


def test_lossless_webp_keeps_every_pixel_even_under_transparency() -> None:
    for mode in ("RGB", "RGBA"):
        image = pictures.image(mode)
        made = opened(encode(image, WebpEncoding(lossless=True), WHITE))
        assert ImageChops.difference(made.convert(mode), image).getbbox(alpha_only=False) is None


def test_avif_has_8_bits_444_and_the_full_range() -> None:
    data = encode(pictures.image(), AvifEncoding(), WHITE)
    configuration = data[data.index(b"av1C") + 5 :]
    # AV1's profile 1 is 4:4:4; then bits for more depth, for grey, and for each direction of subsampling.
    assert (configuration[0] >> 5, configuration[1] & 0b0111_1100) == (1, 0)
    assert data[data.index(b"nclx") + 10] == 0x80


def test_avif_keeps_alpha_and_equal_pictures_make_equal_files() -> None:
    image = pictures.image("RGBA")
    data = encode(image, AvifEncoding(), WHITE, "trainedAlgorithmicMedia")
    assert data == encode(image.copy(), AvifEncoding(), WHITE, "trainedAlgorithmicMedia")
    made = opened(data)
    assert made.mode == "RGBA"
    alpha = ImageChops.difference(made.getchannel("A"), image.getchannel("A"))
    assert max(alpha.tobytes()) <= 8
    solid = [
        ImageChops.multiply(picture.convert("RGB"), picture.getchannel("A").convert("RGB")) for picture in (made, image)
    ]
    assert ImageStat.Stat(ImageChops.difference(*solid)).rms < [4, 4, 4]


def test_the_effort_of_avif_is_as_asked() -> None:
    small, fast = (encode(pictures.image(), AvifEncoding(speed=speed), WHITE) for speed in (6, 9))
    assert len(small) < len(fast)


def test_a_palette_is_written_only_where_it_was_allowed() -> None:
    image = Image.new("RGB", (64, 36), "teal")
    plain, small = (encode(image, PngEncoding(palette=allowed), WHITE) for allowed in (False, True))
    assert (opened(plain).mode, opened(small).mode) == ("RGB", "P")
    assert opened(small).convert("RGB").tobytes() == opened(plain).tobytes() == image.tobytes()
