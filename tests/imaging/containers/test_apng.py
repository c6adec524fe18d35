"""The chunks of an APNG are read as in Chromium 156; where it shows the frames before a fault, the file is refused."""

import struct
import zlib
from collections.abc import Sequence

import pytest

from service.imaging.compose import composed
from service.imaging.containers.animation import Animation
from service.imaging.decode import decode
from service.imaging.errors import Undecodable
from service.imaging.probe import probe
from tests.imaging.animations import Film, Layer, apng, fctl, plain, png_file, png_rows
from tests.imaging.pictures import chunk

LIMIT = 1_000_000
CANVAS = (8, 8)
RED, BLUE, LIME = Layer(plain(CANVAS, "red")), Layer(plain((4, 4), "blue"), 2, 2), Layer(plain((2, 2), "lime"), 5, 5)


def actl(frames: int = 3, plays: int = 0) -> bytes:
    return chunk(b"acTL", struct.pack(">II", frames, plays))


def idat(layer: Layer = RED) -> bytes:
    return chunk(b"IDAT", png_rows(layer.image))


def fdat(sequence: int, layer: Layer) -> bytes:
    return chunk(b"fdAT", sequence.to_bytes(4) + png_rows(layer.image))


def three(*, control: bytes | None = None) -> list[bytes]:
    head = actl() if control is None else control
    return [head, fctl(0, RED), idat(), fctl(1, BLUE), fdat(2, BLUE), fctl(3, LIME), fdat(4, LIME)]


def file(parts: Sequence[bytes]) -> bytes:
    return png_file(CANVAS, parts)


def animation_of(parts: Sequence[bytes]) -> Animation:
    animation = probe(file(parts), LIMIT).animation
    assert animation is not None
    return animation


@pytest.mark.parametrize("announced", [0, 1, 2, 9, 2**32 - 1])
def test_frames_are_counted_whatever_is_announced(announced: int) -> None:
    container = probe(file(three(control=actl(announced))), LIMIT)
    assert container.frames == 3
    assert container.animation is not None
    assert len(list(composed(container.animation))) == 3


@pytest.mark.parametrize("plays", [0, 1, 2, 70_000])
def test_the_number_of_plays_is_that_of_the_header(plays: int) -> None:
    assert animation_of(three(control=actl(3, plays))).timing.plays == plays


@pytest.mark.parametrize(
    "parts",
    [
        three()[1:],
        [*three()[1:3], actl(), *three()[3:]],
        three(control=chunk(b"acTL", struct.pack(">III", 3, 0, 0))),
        three(control=actl()[:-1] + b"x"),
        [actl(1), fctl(0, RED), idat()],
        [actl(1), idat()],
    ],
    ids=["no header", "header behind the pixels", "long header", "damaged header", "one frame", "no frame"],
)
def test_what_is_no_animation_is_a_still_picture(parts: Sequence[bytes]) -> None:
    container = probe(file(parts), LIMIT)
    assert (container.frames, container.animation) == (1, None)


def test_without_the_animation_the_default_image_is_the_picture() -> None:
    film = Film(CANVAS, [BLUE, LIME])
    container = probe(apng(film, default=RED.image), LIMIT)
    assert decode(container).getcolors() == [(64, (255, 0, 0, 255))]
    assert container.frames == 2


def test_one_frame_beside_the_default_image_is_an_animation_of_one_frame() -> None:
    container = probe(apng(Film(CANVAS, [BLUE]), default=RED.image), LIMIT)
    assert container.frames == 1
    assert container.animation is not None
    [frame] = composed(container.animation)
    assert frame.getpixel((2, 2)) == (0, 0, 255, 255)
    assert frame.getpixel((0, 0)) == (0, 0, 0, 0)


def test_delays_are_fractions_of_a_second_and_their_sums_are_rounded() -> None:
    delays = [(0, 0), (5, 0), (1, 3), (1, 3), (1, 3), (0, 7), (1, 65_535), (65_535, 1)]
    parts = [actl(), fctl(0, RED, delays[0]), idat()]
    for number, delay in enumerate(delays[1:]):
        parts += [fctl(2 * number + 1, BLUE, delay), fdat(2 * number + 2, BLUE)]
    assert animation_of(parts).timing.durations == (0, 50, 333, 334, 333, 0, 1, 65_535_000)


def test_compressed_pixels_may_be_in_many_parts() -> None:
    rows = png_rows(BLUE.image)
    pieces = [chunk(b"fdAT", (2 + at).to_bytes(4) + rows[at : at + 1]) for at in range(len(rows))]
    frames = list(composed(animation_of([actl(2), fctl(0, RED), idat(), fctl(1, BLUE), *pieces])))
    assert frames[1].getpixel((3, 3)) == (0, 0, 255, 255)


def broken() -> dict[str, list[bytes]]:
    first, rest = [actl(), fctl(0, RED), idat()], three()[3:]
    thin, flat = (struct.pack(">IIIIIHHBB", 1, *size, 2, 2, 7, 100, 0, 0) for size in ((0, 4), (4, 0)))
    nothing = chunk(b"fdAT", (2).to_bytes(4) + zlib.compress(b""))
    return {
        "frame beyond the right edge": [*first, fctl(1, Layer(BLUE.image, 6, 2)), fdat(2, BLUE)],
        "frame beyond the bottom": [*first, fctl(1, Layer(BLUE.image, 2, 2**31)), fdat(2, BLUE)],
        "frame without width": [*first, chunk(b"fcTL", thin), nothing],
        "frame without height": [*first, chunk(b"fcTL", flat), nothing],
        "frame of another size": [*first, fctl(1, BLUE), fdat(2, LIME)],
        "default image of another size": [actl(), fctl(0, BLUE), idat(), *rest],
        "number left out": [*first, fctl(5, BLUE), fdat(6, BLUE)],
        "numbers swapped": [*first, fctl(3, BLUE), fdat(4, BLUE), fctl(1, LIME), fdat(2, LIME)],
        "pixels out of order": [*first, fctl(1, BLUE), fdat(9, BLUE), *rest[2:]],
        "two headers": [*first, fctl(1, LIME), fctl(2, BLUE), fdat(3, BLUE)],
        "header without pixels": [*first, *rest[:2], fctl(3, LIME)],
        "pixels without header": [*first, fdat(1, BLUE), fctl(2, LIME), fdat(3, LIME)],
        "pixels before the default image": [actl(), fctl(0, RED), fdat(1, RED), idat(), fctl(2, BLUE), fdat(3, BLUE)],
        "no compressed pixels": [*first, fctl(1, BLUE), chunk(b"fdAT", (2).to_bytes(4))],
        "no number": [*first, fctl(1, BLUE), chunk(b"fdAT", b"\0")],
        "damaged header": [*first, fctl(1, BLUE)[:-1] + b"x", fdat(2, BLUE)],
        "short header": [*first, chunk(b"fcTL", fctl(1, BLUE)[8:-5]), fdat(2, BLUE)],
        "unknown disposal": [*first, chunk(b"fcTL", fctl(1, BLUE)[8:-6] + b"\3\0"), fdat(2, BLUE)],
        "unknown blend": [*first, chunk(b"fcTL", fctl(1, BLUE)[8:-6] + b"\0\2"), fdat(2, BLUE)],
    }


@pytest.mark.parametrize("name", broken())
def test_an_animation_that_is_broken_is_undecodable_but_its_default_image_is_not(name: str) -> None:
    parts = broken()[name]
    with pytest.raises(Undecodable):
        list(composed(animation_of(parts)))
    assert decode(probe(file(parts), LIMIT)).getpixel((0, 0)) == (255, 0, 0, 255)


def test_a_file_that_is_cut_anywhere_is_composed_whole_or_refused() -> None:
    data = file(three())
    for end in range(33, len(data)):
        try:
            animation = probe(data[:end], LIMIT).animation
            frames = list(composed(animation)) if animation else []
        except Undecodable:
            continue
        assert len(frames) in (0, 2, 3), end
