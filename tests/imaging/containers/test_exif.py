"""The orientation in every form that libvips and Pillow read."""

from struct import pack

import pytest
import pyvips

from service.imaging.containers.exif import orientation_of
from service.imaging.probe import probe
from tests.imaging import pictures
from tests.imaging.pictures import exif

TAG = 0x0112
BYTE, ASCII, SHORT, LONG, RATIONAL, SIGNED_BYTE, UNDEFINED, SIGNED_SHORT, SIGNED_LONG = 1, 2, 3, 4, 5, 6, 7, 8, 9


def entry(order: str, kind: int, count: int, value: bytes) -> bytes:
    return pack(f"{order}HHI", TAG, kind, count) + value.ljust(4, b"\0")


def block(order: str, *entries: bytes, behind: bytes = b"") -> bytes:
    head = (b"II" if order == "<" else b"MM") + pack(f"{order}HIH", 42, 8, len(entries))
    return head + b"".join(entries) + bytes(4) + behind


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("kind", "code"),
    [(BYTE, "B"), (SHORT, "H"), (LONG, "I"), (SIGNED_BYTE, "b"), (SIGNED_SHORT, "h"), (SIGNED_LONG, "i")],
)
def test_an_orientation_of_any_integer_type_counts(order: str, kind: int, code: str) -> None:
    tiff = block(order, entry(order, kind, 1, pack(order + code, 6)))
    assert orientation_of(tiff) == 6
    image = pyvips.Image.new_from_buffer(with_exif(tiff), "").autorot()
    assert (image.width, image.height) == pictures.SIZE[::-1]


@pytest.mark.parametrize(
    "tiff",
    [
        block("<", entry("<", ASCII, 2, b"6\0")),
        block("<", entry("<", UNDEFINED, 1, b"\6")),
        block("<", entry("<", RATIONAL, 1, pack("<I", 26)), behind=pack("<II", 6, 1)),
        block("<", entry("<", SHORT, 0, pack("<H", 6))),
        block("<", entry("<", LONG, 1, pack("<I", 9))),
        block("<", entry("<", LONG, 1, pack("<I", 6 << 16))),
        block("<", entry("<", SIGNED_SHORT, 1, pack("<h", -6))),
        block("<", entry("<", LONG, 2, pack("<I", 1_000))),
        pictures.EMPTY_EXIF,
    ],
)
def test_anything_else_is_upright(tiff: bytes) -> None:
    assert orientation_of(tiff) == 1


def test_several_values_are_read_from_where_they_are() -> None:
    values = pack("<3H", 6, 1, 1)
    assert orientation_of(block("<", entry("<", SHORT, 3, pack("<I", 26)), behind=values)) == 6
    assert orientation_of(block("<", entry("<", SHORT, 2, pack("<2H", 6, 1)))) == 6


@pytest.mark.parametrize(
    ("blocks", "orientation"),
    [((exif(6), exif(3)), 6), ((pictures.EMPTY_EXIF, exif(6)), 1), ((b"rubbish", exif(6)), 1), ((exif(6), b""), 6)],
)
def test_of_several_blocks_in_a_jpeg_the_first_counts(blocks: tuple[bytes, ...], orientation: int) -> None:
    assert probe(with_exif(*blocks), 1_000_000).orientation == orientation


def with_exif(*blocks: bytes) -> bytes:
    data = pictures.jpeg()
    segments = (b"\xff\xe1" + pack(">H", 8 + len(block)) + b"Exif\0\0" + block for block in blocks)
    return data[:2] + b"".join(segments) + data[2:]
