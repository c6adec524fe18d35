"""Animated WebP: each frame as good as a still, times of any length, and a container that libwebp accepts."""

import itertools
import struct

import pytest
from PIL import Image

from service.imaging.animated import encode_animation
from service.imaging.containers.webp import riff_chunks
from service.imaging.formats import WebpEncoding
from service.imaging.profiles import srgb
from service.imaging.provenance import GENERATED, packet
from service.imaging.timing import Timing
from tests.imaging import moving, pictures
from tests.imaging.moving import largest_error, played, psnr

WHITE = (255, 255, 255)


def encoded(frames: list[Image.Image], durations: tuple[int, ...] | None = None, *, lossless: bool = False) -> bytes:
    timing = Timing(durations or (100,) * len(frames))
    return encode_animation(frames, timing, WebpEncoding(lossless=lossless), WHITE, GENERATED)


def fields(data: bytes) -> list[list[int]]:
    """Left, top, width, height and duration of each frame."""
    frames = [body for kind, body in riff_chunks(data) if kind == b"ANMF"]
    triples = [[int.from_bytes(body[at : at + 3], "little") for at in range(0, 15, 3)] for body in frames]
    return [[2 * left, 2 * top, width + 1, height + 1, duration] for left, top, width, height, duration in triples]


def test_chunks_are_in_order() -> None:
    chunks = [(kind, bytes(body)) for kind, body in riff_chunks(encoded(moving.sprites(2)))]
    assert [kind for kind, _ in chunks] == [b"VP8X", b"ICCP", b"ANIM", b"ANMF", b"ANMF", b"XMP "]
    assert chunks[0][1] == struct.pack("<I", 0x36) + b"\x5f\0\0\x3f\0\0"
    assert chunks[1][1] == srgb()
    assert chunks[5][1] == packet(GENERATED)


def test_only_transparent_pictures_say_that_they_have_alpha() -> None:
    assert [encoded(frames)[20] for frames in (moving.rolled(2), moving.sprites(2))] == [0x26, 0x36]


def test_a_frame_is_the_rectangle_that_changes_at_even_offsets() -> None:
    boxes = [each[:4] for each in fields(encoded(moving.rolled(3)))]
    assert boxes == [[0, 0, 96, 64], [4, 20, 33, 28], [12, 22, 32, 29]]


@pytest.mark.parametrize("lossless", [False, True])
def test_errors_do_not_add_up_in_a_slow_fade(lossless: bool) -> None:
    picture = pictures.image("RGB", (160, 96))
    frames = [Image.blend(picture, picture.rotate(180), step / 60) for step in range(60)]
    shown = played(encoded(frames, lossless=lossless)).frames
    for frame, other in zip(frames, shown, strict=True):
        if lossless:
            assert largest_error(frame, other) == 0
        else:
            assert psnr(frame, other) > psnr(frame, played(encoded([frame])).frames[0]) - 0.5


def test_durations_of_any_length_are_exact() -> None:
    durations = (0, 1, 16_777_215, 16_777_216, 65_535_000) + (65_535_000,) * 40
    frames = list(itertools.islice(itertools.cycle(moving.sprites(5)), len(durations)))
    *_, written = zip(*fields(encoded(frames, durations)), strict=True)
    assert written[:5] == (0, 1, 16_777_215, 16_777_215, 1)
    assert sum(written) == sum(durations)


def test_a_longer_frame_stays_as_it_is() -> None:
    frames = moving.rolled(2)
    read = played(encoded(frames, (50_000_000, 100), lossless=True))
    assert read.durations == [16_777_215, 16_777_215, 16_445_570, 100]
    assert [largest_error(frames[at], shown) for at, shown in zip((0, 0, 0, 1), read.frames, strict=True)] == [0] * 4
