"""Each frame beside an independent composition, pixel by pixel by the words of the specifications."""

import random
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from service.imaging.compose import composed
from service.imaging.containers.animation import Animation
from service.imaging.decode import decode
from service.imaging.normalize import to_srgb
from service.imaging.probe import probe
from service.imaging.profiles import ProfileError
from tests.imaging import animations, icc, pictures
from tests.imaging.animations import Film, Layer, gif, noise, plain, random_film, reference, worst
from tests.imaging.pictures import GREY, GREY_ALPHA, PALETTE, RGB, RGB_ALPHA

LIMIT = 1_000_000
RED, BLUE, CLEAR = (255, 0, 0, 255), (0, 0, 255, 255), (0, 0, 0, 0)


def animation_of(data: bytes) -> Animation:
    animation = probe(data, LIMIT).animation
    assert animation is not None
    return animation


def frames(data: bytes) -> list[Image.Image]:
    return [frame.convert("RGBA") for frame in composed(animation_of(data))]


def assert_composed_as(data: bytes, film: Film) -> None:
    animation = animation_of(data)
    assert animation.canvas == film.canvas
    assert animation.timing.durations == tuple(layer.duration for layer in film.layers)
    assert animation.timing.plays == film.plays
    ours, expected = frames(data), reference(film)
    assert len(ours) == len(expected)
    assert max(map(worst, ours, expected)) <= 1


@pytest.mark.parametrize("seed", range(6))
def test_a_gif_is_composed_by_every_disposal_and_cut_to_its_canvas(seed: int) -> None:
    film = random_film(seed, beyond=True, soft=False)
    assert_composed_as(gif(film, interlaced=seed % 2 == 0), film)


@pytest.mark.parametrize("seed", range(6))
def test_an_animated_png_is_composed_by_every_disposal_and_blend(seed: int) -> None:
    film = random_film(seed)
    assert_composed_as(animations.apng(film), film)


@pytest.mark.parametrize("seed", range(6))
def test_an_animated_webp_is_composed_by_every_disposal_and_blend(seed: int) -> None:
    film = random_film(seed, even=True, previous=False)
    assert_composed_as(animations.webp(film), film)


@pytest.mark.parametrize("make", [gif, animations.apng, animations.webp])
def test_a_first_frame_smaller_than_the_canvas_has_transparency_around_it(make: Callable[[Film], bytes]) -> None:
    film = Film((10, 8), [Layer(plain((4, 2), RED), 2, 4), Layer(plain((10, 8), BLUE))])
    first, second = frames(make(film))
    assert (first.getpixel((2, 4)), first.getpixel((5, 5))) == (RED, RED)
    assert (first.getpixel((6, 5)), first.getpixel((2, 6))) == (CLEAR, CLEAR)
    assert second.getcolors() == [(80, BLUE)]


def test_a_default_image_that_is_no_frame_is_left_out() -> None:
    film = Film((6, 6), [Layer(plain((6, 6), RED)), Layer(plain((2, 2), BLUE), 1, 1)], plays=3)
    data = animations.apng(film, default=plain((6, 6), "lime"))
    assert probe(data, LIMIT).frames == 2
    assert_composed_as(data, film)


def test_frames_are_opaque_where_nothing_shows_through() -> None:
    film = Film((6, 6), [Layer(plain((6, 6), RED)), Layer(plain((2, 2), BLUE), 1, 1)])
    assert [frame.mode for frame in composed(animation_of(opaque_gif(film)))] == ["RGB", "RGB"]


def opaque_gif(film: Film) -> bytes:
    images = [Image.new("P", layer.image.size) for layer in film.layers]
    for image, layer in zip(images, film.layers, strict=True):
        image.putpalette(layer.image.convert("RGB").tobytes()[:3] * 2)
    return pictures.saved(images[0], "GIF", save_all=True, append_images=images[1:])


def test_a_frame_is_not_changed_by_those_after_it() -> None:
    film = random_film(3)
    given = composed(animation_of(animations.apng(film)))
    kept = [(frame, frame.tobytes()) for frame in given]
    assert all(frame.tobytes() == data for frame, data in kept)


def test_the_colours_of_a_frame_are_converted_when_it_is_complete() -> None:
    numbers = random.Random(5)
    film = Film((8, 8), [Layer(noise((8, 8), numbers, (255,))), Layer(noise((4, 4), numbers, (128,)), 2, 2)])
    parts = pictures.chunk(b"iCCP", b"test\0\0" + zlib.compress(icc.ADOBE_RGB))
    animation = animation_of(animations.apng(film, parts=parts))
    expected = [to_srgb(frame, icc.ADOBE_RGB) for frame in reference(film)]
    assert max(map(worst, composed(animation, icc.ADOBE_RGB), expected)) <= 1
    assert worst(expected[0], film.layers[0].image) > 10


def test_a_profile_that_cannot_be_used_is_told_before_the_first_frame() -> None:
    animation = animation_of(animations.apng(random_film(1)))
    with pytest.raises(ProfileError):
        next(composed(animation, icc.grey_profile(2.2)))


KINDS = [(1, GREY), (4, GREY), (16, GREY), (8, GREY_ALPHA), (16, GREY_ALPHA), (8, RGB), (16, RGB), (2, PALETTE)]


@pytest.mark.parametrize(("depth", "colour"), [*KINDS, (8, PALETTE), (16, RGB_ALPHA)])
@pytest.mark.parametrize("key", [b"", b"\0\1", b"\0\1\0\2\0\3", b"\x80"], ids=["opaque", "grey", "rgb", "palette"])
def test_a_frame_of_any_kind_of_png_looks_like_a_picture_of_its_own(depth: int, colour: int, key: bytes) -> None:
    if len(key) != {GREY: 2, RGB: 6, PALETTE: 1}.get(colour, 0) and key:
        pytest.skip("no transparency of this kind")
    still = pictures.png(depth, colour, transparency=key or None)
    expected = to_srgb(decode(probe(still, LIMIT)), None).convert("RGBA")
    first, second = frames(animations.twice(still))
    assert worst(first, expected) == worst(second, expected) == 0
