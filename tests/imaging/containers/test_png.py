"""Damaged, repeated and misplaced chunks are treated as in libpng."""

import struct
import zlib
from itertools import permutations

import pytest
import pyvips
from PIL import Image

from service.imaging.containers.container import BROKEN_PROFILE
from service.imaging.decode import decode
from service.imaging.errors import Undecodable
from service.imaging.probe import probe
from tests.imaging import icc, pictures
from tests.imaging.pictures import PALETTE, RGB, chunk, exif

LIMIT = 1_000_000
COLOURS = bytes(value for index in range(4) for value in (80 * index, 255 - 80 * index, 9))
PLTE, TRNS, OTHER = chunk(b"PLTE", COLOURS), chunk(b"tRNS", b"\0\x80"), chunk(b"tRNS", b"\x40\x40\x40")
LONG, EMPTY = chunk(b"tRNS", b"\1\2\3\4\5"), chunk(b"tRNS", b"")
P3, ADOBE = (chunk(b"iCCP", b"a\0\0" + zlib.compress(profile)) for profile in (icc.DISPLAY_P3, icc.ADOBE_RGB))


def damaged(part: bytes) -> bytes:
    return part[:-1] + bytes((part[-1] ^ 1,))


def palette_png(*parts: bytes) -> bytes:
    return pictures.png_of((4, 1), 2, PALETTE, parts, b"\0\x1b")


def shown(data: bytes) -> bytes:
    return decode(probe(data, LIMIT)).convert("RGBA").tobytes()


def shown_by_libvips(data: bytes) -> bytes:
    image = pyvips.Image.new_from_buffer(data, "")
    mode = {3: "RGB", 4: "RGBA"}[image.bands]
    return Image.frombytes(mode, (image.width, image.height), image.write_to_memory()).convert("RGBA").tobytes()


@pytest.mark.parametrize(
    "parts",
    [
        *permutations((PLTE, TRNS)),
        *permutations((PLTE, TRNS, OTHER)),
        *permutations((PLTE, LONG, TRNS)),
        *permutations((PLTE, EMPTY, TRNS)),
        (chunk(b"PLTE", COLOURS * 2), LONG),
        (chunk(b"PLTE", COLOURS[:6]), OTHER),
        (chunk(b"PLTE", COLOURS[:6]),),
    ],
)
def test_transparency_of_a_palette_counts_as_for_libvips(parts: tuple[bytes, ...]) -> None:
    data = palette_png(*parts)
    assert shown(data) == shown_by_libvips(data)


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_transparent_colours_the_first_counts(order: int) -> None:
    keys = [chunk(b"tRNS", b"\0\1\0\2\0\3"), chunk(b"tRNS", b"\0\4\0\5\0\6")][::order]
    data = pictures.png_of((2, 1), 8, RGB, keys, b"\0\1\2\3\4\5\6")
    assert shown(data) == shown_by_libvips(data)


def test_after_a_damaged_transparency_the_next_counts() -> None:
    assert shown(palette_png(PLTE, damaged(OTHER), TRNS)) == shown(palette_png(PLTE, TRNS))


@pytest.mark.parametrize(
    "parts",
    [(), (TRNS,), (chunk(b"PLTE", b""),), (chunk(b"PLTE", COLOURS + b"\0"),), (PLTE, PLTE)],
    ids=["none", "transparency-alone", "empty", "not-in-threes", "two"],
)
def test_a_picture_whose_palette_is_missing_or_broken_is_undecodable(parts: tuple[bytes, ...]) -> None:
    data = palette_png(*parts)
    with pytest.raises(pyvips.Error):
        shown_by_libvips(data)
    with pytest.raises(Undecodable):
        shown(data)


def test_a_palette_after_the_pixels_is_ignored() -> None:
    data = palette_png()
    with pytest.raises(Undecodable, match="palette"):
        shown(data[:-12] + PLTE + data[-12:])


def test_a_profile_counts_before_the_palette_and_the_pixels_only() -> None:
    for data in (
        palette_png(PLTE, P3),
        pictures.png(8, RGB, extra=chunk(b"PLTE", COLOURS) + P3),
    ):
        assert probe(data, LIMIT).profile is None
    plain = pictures.png(8, RGB)
    assert probe(plain[:-12] + P3 + plain[-12:], LIMIT).profile is None
    assert probe(palette_png(P3, PLTE), LIMIT).profile == icc.DISPLAY_P3


def test_of_two_profiles_the_first_counts_even_broken() -> None:
    first, second = P3, ADOBE
    assert probe(pictures.png(8, RGB, extra=first + second), LIMIT).profile == icc.DISPLAY_P3
    assert probe(pictures.png(8, RGB, extra=damaged(first) + second), LIMIT).profile == BROKEN_PROFILE


@pytest.mark.parametrize(
    ("blocks", "orientation"),
    [
        ((exif(6), exif(3)), 6),
        ((pictures.EMPTY_EXIF, exif(6)), 1),
        ((b"rubbish", exif(6)), 1),
        ((b"Exif\0\0" + exif(6),), 6),
    ],
)
def test_of_several_exif_blocks_the_first_counts(blocks: tuple[bytes, ...], orientation: int) -> None:
    chunks = b"".join(chunk(b"eXIf", block) for block in blocks)
    assert probe(pictures.png(8, RGB, extra=chunks), LIMIT).orientation == orientation


def test_after_a_damaged_exif_block_the_next_counts() -> None:
    chunks = damaged(chunk(b"eXIf", exif(6))) + chunk(b"eXIf", exif(3))
    assert probe(pictures.png(8, RGB, extra=chunks), LIMIT).orientation == 3


def frame(number: int) -> bytes:
    """Of one pixel."""
    return chunk(b"fcTL", struct.pack(">3I14x", number, 1, 1))


def with_chunks(control: bytes, before: bytes, behind: bytes) -> bytes:
    data = pictures.png(8, RGB, extra=control + before)
    return data[:-12] + behind + data[-12:]


DATA = chunk(b"fdAT", b"\0\0\0\1data")


@pytest.mark.parametrize(
    ("announced", "before", "behind", "frames"),
    [
        (2, frame(0), frame(1) + DATA, 2),
        (1, frame(0), frame(1) + DATA + frame(3) + DATA, 3),
        (0, frame(0), frame(1) + DATA, 2),
        (2, b"", frame(0) + DATA + DATA + frame(3) + DATA, 2),
        (9, b"", b"", 1),
        (9, frame(0), b"", 1),
        (2, b"", frame(0) + DATA, 1),
        (2, frame(0), frame(1), 1),
        (2, frame(0), damaged(frame(1)) + DATA, 1),
        (2, frame(0), frame(1)[:20] + DATA, 1),
    ],
)
def test_frames_are_counted_whatever_is_announced(announced: int, before: bytes, behind: bytes, frames: int) -> None:
    control = chunk(b"acTL", announced.to_bytes(4) + bytes(4))
    assert probe(with_chunks(control, before, behind), LIMIT).frames == frames


@pytest.mark.parametrize("control", [b"", damaged(chunk(b"acTL", bytes(8)))])
def test_without_its_control_chunk_there_is_no_animation(control: bytes) -> None:
    assert probe(with_chunks(control, frame(0), frame(1) + DATA), LIMIT).frames == 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_an_animation_by_pillow_has_its_frames(count: int) -> None:
    frames = [Image.new("RGB", (8, 8), (level * 40, 0, 0)) for level in range(count)]
    data = pictures.saved(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=100)
    assert probe(data, LIMIT).frames == count
