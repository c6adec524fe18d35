"""The chunks of a WebP are treated as in libwebp: they count if VP8X announces them, up to the length of the RIFF."""

from struct import pack

import pytest
from PIL import Image

from service.imaging.probe import probe
from tests.imaging import icc, pictures
from tests.imaging.pictures import exif

LIMIT = 1_000_000
EXIF, PROFILE, ANIMATION = 0x08, 0x20, 0x02


def flagged(data: bytes, *, off: int) -> bytes:
    return data[:20] + bytes((data[20] & ~off,)) + data[21:]


def riff_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def sized(data: bytes) -> bytes:
    return data[:4] + pack("<I", len(data) - 8) + data[8:]


def test_metadata_counts_where_it_is_announced_only() -> None:
    data = pictures.webp(orientation=6, profile=icc.DISPLAY_P3)
    assert (probe(data, LIMIT).orientation, probe(data, LIMIT).profile) == (6, icc.DISPLAY_P3)
    assert probe(flagged(data, off=EXIF), LIMIT).orientation == 1
    assert probe(flagged(data, off=PROFILE), LIMIT).profile is None


def test_a_simple_file_has_no_metadata() -> None:
    data = sized(pictures.webp() + riff_chunk(b"EXIF", exif(6)) + riff_chunk(b"ICCP", icc.DISPLAY_P3))
    assert (probe(data, LIMIT).orientation, probe(data, LIMIT).profile) == (1, None)


@pytest.mark.parametrize("block", [exif(3), pictures.EMPTY_EXIF, b"rubbish"])
def test_of_several_exif_blocks_the_first_counts(block: bytes) -> None:
    data = pictures.webp(orientation=6)
    assert probe(sized(data + riff_chunk(b"EXIF", block)), LIMIT).orientation == 6
    at = data.index(b"EXIF")
    first = sized(data[:at] + riff_chunk(b"EXIF", block) + data[at:])
    assert probe(first, LIMIT).orientation == (3 if block == exif(3) else 1)


def test_chunks_after_the_end_of_the_riff_are_ignored() -> None:
    data = pictures.webp(orientation=6)
    short = data[:4] + pack("<I", data.index(b"EXIF") - 8) + data[8:]
    assert probe(short, LIMIT).orientation == 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_frames_are_counted(count: int) -> None:
    frames = [Image.new("RGB", (8, 8), (level * 40, 0, 0)) for level in range(count)]
    data = pictures.saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=100)
    assert probe(data, LIMIT).frames == count


def test_one_frame_is_a_still() -> None:
    frames = [Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")]
    data = pictures.saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=100)
    assert probe(sized(data[: data.rindex(b"ANMF")]), LIMIT).frames == 1
