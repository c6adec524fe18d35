"""APNG: lossless, each frame no larger than what changes, delays as exact fractions."""

import struct
from collections.abc import Iterator
from itertools import pairwise

import pytest
from PIL import Image

from service.imaging.apng import encode_apng
from service.imaging.encode import encode
from service.imaging.formats import PngEncoding
from service.imaging.timing import Timing
from tests.imaging import moving
from tests.imaging.moving import largest_error, played


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 8
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, data[position + 8 : position + 8 + length]
        position += 12 + length


def encoded(frames: list[Image.Image], durations: tuple[int, ...] | None = None, **options: bool) -> bytes:
    return encode_apng(frames, Timing(durations or (100,) * len(frames)), PngEncoding(compression=2, **options))


def controls(data: bytes) -> list[tuple[int, ...]]:
    """Sequence number, width, height, left, top, numerator, denominator, disposal and blending of each frame."""
    return [struct.unpack(">5I2H2B", body) for kind, body in chunks(data) if kind == b"fcTL"]


def test_chunks_are_in_order_and_numbered() -> None:
    found = list(chunks(encoded(moving.rolled(3))))
    assert [kind for kind, _ in found] == [
        b"IHDR", b"sRGB", b"acTL", b"fcTL", b"IDAT", b"fcTL", b"fdAT", b"fcTL", b"fdAT", b"IEND",
    ]  # fmt: skip
    assert [struct.unpack_from(">I", body)[0] for kind, body in found if kind in (b"fcTL", b"fdAT")] == [0, 1, 2, 3, 4]
    assert found[2][1] == struct.pack(">2I", 3, 0)


def test_a_frame_is_the_rectangle_that_changes() -> None:
    first, *others = controls(encoded(moving.rolled(3)))
    assert first[1:5] == (*moving.SIZE, 0, 0)
    assert [other[1:5] for other in others] == [(32, 28, 5, 20), (32, 28, 12, 23)]


@pytest.mark.parametrize("palette", [False, True])
def test_frames_share_one_colour_type(palette: bool) -> None:
    opaque, clear = moving.rolled(1)[0], moving.sprites(2)[1]
    flat = moving.drawn(3)
    for frames in ([opaque, clear], [clear, opaque], [opaque.convert("RGBA"), opaque.rotate(180)], flat):
        read = played(encoded(frames, palette=palette))
        assert [largest_error(*pair) for pair in zip(frames, read.frames, strict=True)] == [0] * len(frames)


def test_an_animation_of_few_colours_may_be_indexed() -> None:
    frames = moving.drawn(6)
    indexed, plain = encoded(frames, palette=True), encoded(frames)
    assert [kind for kind, _ in chunks(indexed)][2] == b"PLTE"
    assert len(indexed) < len(plain)
    assert b"PLTE" not in encoded(moving.rolled(6), palette=True)


def test_every_duration_is_exact() -> None:
    durations = (0, 1, 33, 65_535, 65_536, 70_010, 655_350, 1_000_000, 16_777_215, 65_535_000, 65_535_001, 200_000_007)
    frames = moving.rolled(len(durations))
    data = encoded(frames, durations)
    delays = [(numerator, denominator) for *_, numerator, denominator, _, _ in controls(data)]
    assert all(denominator for _, denominator in delays)
    assert sum(round(1000 * one / other) for one, other in delays) == sum(durations)
    assert [one * 1000 / other for one, other in delays[:6]] == [0, 1, 33, 65_535, 65_536, 70_010]
    # Where a duration takes several frames, these change nothing.
    shown = played(data).frames
    distinct = shown[:1] + [frame for before, frame in pairwise(shown) if largest_error(before, frame)]
    assert [largest_error(*pair) for pair in zip(frames, distinct, strict=True)] == [0] * len(frames)


def test_the_first_frame_is_the_still_of_readers_without_animation() -> None:
    frames = moving.panned(3)
    data = encoded(frames)
    still = encode(frames[0], PngEncoding(compression=2), (255, 255, 255))
    assert dict(chunks(data))[b"IDAT"] == dict(chunks(still))[b"IDAT"]
