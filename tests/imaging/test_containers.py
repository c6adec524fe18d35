import contextlib
import struct
import zlib
from collections.abc import Callable

import pytest

from service.imaging.containers.container import BROKEN_PROFILE
from service.imaging.containers.jpeg import MAX_SCANS
from service.imaging.errors import ImagingError, TooCostly, TooManyPixels, Undecodable, UnsupportedType
from service.imaging.probe import probe
from tests.imaging import icc, pictures
from tests.imaging.pictures import GREY, RGB, chunk

LIMIT = 1_000_000


def header_only(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))


def with_scans(count: int) -> bytes:
    data = pictures.jpeg(progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * (count - data.count(b"\xff\xda") + 1) + data[-2:]


@pytest.mark.parametrize("make", [lambda **o: pictures.png(8, RGB, **o), pictures.jpeg, pictures.webp])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_orientation_and_profile_are_read_before_decoding(make: object, orientation: int) -> None:
    assert callable(make)
    container = probe(make(orientation=orientation, profile=icc.DISPLAY_P3), LIMIT)
    assert container.size == pictures.SIZE
    assert container.orientation == orientation
    assert container.upright_size == (pictures.SIZE if orientation < 5 else pictures.SIZE[::-1])
    assert container.profile == icc.DISPLAY_P3


@pytest.mark.parametrize("data", [b"", b"\x89PNG", b"GIF88a" + bytes(50), b"<svg/>", b"RIFF\0\0\0\0WAVE", b"\xff\xd8"])
def test_other_formats_are_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedType):
        probe(data, LIMIT)


def test_too_many_pixels_are_refused_by_the_header_with_size_and_limit() -> None:
    with pytest.raises(TooManyPixels, match=r"50000 x 50000, 2,500,000,000 pixels; at most 1,000,000"):
        probe(header_only(50_000, 50_000), LIMIT)
    webp = bytearray(pictures.webp("RGBA", profile=icc.SRGB))
    webp[24:30] = b"\xff\x3f\0\xff\x3f\0"
    with pytest.raises(TooManyPixels, match="16384 x 16384"):
        probe(bytes(webp), LIMIT)


def test_as_many_pixels_as_the_limit_are_accepted() -> None:
    width, height = pictures.SIZE
    assert probe(pictures.jpeg(), width * height).size == pictures.SIZE
    with pytest.raises(TooManyPixels):
        probe(pictures.jpeg(), width * height - 1)


@pytest.mark.parametrize("size", [(0, 10), (10, 0)])
def test_a_picture_without_extent_is_undecodable(size: tuple[int, int]) -> None:
    with pytest.raises(Undecodable):
        probe(header_only(*size), LIMIT)


@pytest.mark.parametrize("make", [lambda: pictures.png(8, RGB), pictures.jpeg, pictures.webp])
def test_a_file_cut_anywhere_is_read_or_refused(make: object) -> None:
    assert callable(make)
    data = make()
    for end in [*range(120), *range(120, len(data), 97)]:
        with contextlib.suppress(ImagingError):
            assert probe(data[:end], LIMIT).size == pictures.SIZE


def test_scans_are_counted() -> None:
    probe(with_scans(MAX_SCANS), LIMIT)
    with pytest.raises(TooCostly, match="3000 scans; at most 100"):
        probe(with_scans(3_000), LIMIT)


def test_scans_of_an_embedded_preview_do_not_count() -> None:
    data = pictures.jpeg()
    preview = b"\xff\xda\0\x02" * 3_000
    segment = b"\xff\xe1" + (len(preview) + 2).to_bytes(2) + preview
    assert probe(data[:2] + segment + data[2:], LIMIT).size == pictures.SIZE


@pytest.mark.parametrize(
    "make",
    [
        lambda: pictures.png(8, RGB, extra=chunk(b"tEXt", b"") * 100_000),
        lambda: b"\xff\xd8" + b"\xff\xfe\0\x02" * 100_000,
        lambda: b"\xff\xd8" + b"\xff\x01" * 100_000,
        lambda: b"RIFF\xff\xff\xff\0WEBP" + b"JUNK\0\0\0\0" * 100_000,
    ],
    ids=["png", "jpeg", "jpeg-bare", "webp"],
)
def test_a_file_of_very_many_parts_is_too_costly(make: Callable[[], bytes]) -> None:
    with pytest.raises(TooCostly, match="parts"):
        probe(make(), LIMIT)


def test_ancillary_chunks_do_not_reach_the_decoder() -> None:
    plain = pictures.png(8, RGB)
    text = chunk(b"tEXt", b"Comment\0" + bytes(20_000_000))
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000)))
    container = probe(pictures.png(8, RGB, extra=text + bomb + chunk(b"gAMA", bytes(3))), LIMIT)
    assert container.data == plain


def test_metadata_and_a_second_picture_do_not_reach_the_jpeg_decoder() -> None:
    plain = pictures.jpeg()
    comment = b"\xff\xfe\0\x06note" + b"filler of a length that was wrong"
    photoshop = b"\xff\xed\0\x10Photoshop 3.0\0"
    stuffed = plain[:2] + comment + photoshop + plain[2:] + pictures.jpeg() + b"<script>"
    assert probe(stuffed, LIMIT).data == plain


@pytest.mark.parametrize(
    "pack",
    [
        lambda: b"name\0\0" + zlib.compress(bytes(60_000_000)),
        lambda: b"name\0\0" + zlib.compress(icc.DISPLAY_P3)[:-9],
        lambda: b"name\0\0rubbish",
        lambda: b"",
    ],
    ids=["bomb", "cut", "rubbish", "empty"],
)
def test_a_profile_that_cannot_be_unpacked_is_broken(pack: Callable[[], bytes]) -> None:
    assert probe(pictures.png(8, RGB, extra=chunk(b"iCCP", pack())), LIMIT).profile == BROKEN_PROFILE


def test_a_profile_in_pieces_is_joined_and_a_missing_piece_breaks_it() -> None:
    data = pictures.jpeg(profile=icc.cmyk_profile(), mode="CMYK")
    assert probe(data, LIMIT).profile == icc.cmyk_profile()
    start = data.index(b"ICC_PROFILE\0\x02") - 4
    (length,) = struct.unpack_from(">H", data, start + 2)
    assert probe(data[:start] + data[start + 2 + length :], LIMIT).profile == BROKEN_PROFILE


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(orientation: int) -> None:
    assert probe(pictures.png(8, GREY, orientation=orientation), LIMIT).orientation == 1


def test_rubbish_for_exif_is_upright() -> None:
    for body in (b"", b"II*\0", b"MM\0*\0\0\0\x08\xff\xff", b"MM\0*\xff\xff\xff\xff", bytes(100)):
        assert probe(pictures.png(8, GREY, extra=chunk(b"eXIf", body)), LIMIT).orientation == 1
