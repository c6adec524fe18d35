import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from service.imaging.frame import Size
from service.imaging.normalize import flatten, resize, to_srgb, upright
from service.imaging.plan import Fit
from service.imaging.profiles import ProfileError, srgb
from tests.imaging import icc, pictures

RED, WHITE, BLUE = (255, 0, 0), (255, 255, 255), (0, 0, 255)


def corners(image: Image.Image) -> str:
    right, bottom = image.width - 1, image.height - 1
    return "".join("ABCD"[image.getpixel(at)] for at in ((0, 0), (right, 0), (0, bottom), (right, bottom)))  # type: ignore[index]  # a number, of one band


@pytest.mark.parametrize(
    ("orientation", "expected"), list(enumerate(["ABCD", "BADC", "DCBA", "CDAB", "ACBD", "CADB", "DBCA", "BDAC"], 1))
)
def test_upright_follows_every_orientation(orientation: int, expected: str) -> None:
    stored = Image.frombytes("L", (2, 2), bytes([0, 1, 2, 3]))
    assert corners(upright(stored, orientation)) == expected


def test_without_a_profile_colours_stay() -> None:
    image = pictures.image("RGB")
    assert to_srgb(image, None) is image


def test_an_srgb_profile_by_any_name_changes_nothing() -> None:
    image = pictures.image("RGBA")
    for profile in (icc.SRGB, srgb()):
        assert to_srgb(image, profile) is image


def test_display_p3_moves_colours_and_keeps_transparency() -> None:
    image = Image.new("RGBA", (1, 1), (200, 100, 50, 7))
    assert to_srgb(image, icc.DISPLAY_P3).getpixel((0, 0)) == (215, 93, 31, 7)


@pytest.mark.parametrize(
    "profile",
    [
        b"",
        b"rubbish",
        bytes(200),
        icc.DISPLAY_P3[:150],
        icc.DISPLAY_P3[:16] + b"RG\x80 " + icc.DISPLAY_P3[20:],
        icc.DISPLAY_P3.replace(b"rTRC", b"xTRC"),
        icc.cmyk_profile(),
        icc.grey_profile(2.2),
    ],
)
def test_a_broken_or_foreign_profile_is_refused(profile: bytes) -> None:
    with pytest.raises(ProfileError):
        to_srgb(pictures.image("RGB"), profile)


def test_a_grey_picture_may_have_an_rgb_profile() -> None:
    grey = Image.linear_gradient("L")
    expected = to_srgb(grey.convert("RGB"), icc.ADOBE_RGB)
    assert to_srgb(grey, icc.ADOBE_RGB).tobytes() == expected.tobytes()


def test_sixteen_bits_are_scaled() -> None:
    levels = [0, 128, 129, 257, 32_768, 65_407, 65_535]
    deep = Image.frombytes("I;16", (len(levels), 1), b"".join(level.to_bytes(2, "little") for level in levels))
    assert list(to_srgb(deep, None).getchannel("R").tobytes()) == [0, 0, 1, 1, 128, 255, 255]


def test_ink_without_a_profile_leaves_paper_times_paper() -> None:
    ink = Image.new("CMYK", (1, 1), (51, 102, 0, 51))
    assert to_srgb(ink, None).getpixel((0, 0)) == (163, 122, 204)


def test_flatten_lays_the_picture_over_the_matte() -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 0), (255, 0, 0, 255), (255, 0, 0, 51)])
    flat = flatten(image, BLUE)
    assert flat.mode == "RGB"
    assert flat.tobytes() == bytes([0, 0, 255, 255, 0, 0, 51, 0, 204])


def test_a_picture_of_the_right_size_is_not_resampled() -> None:
    image = pictures.image()
    for fit in ("cover", "contain", "stretch"):
        assert resize(image, image.size, fit, WHITE) is image


def test_cover_crops_around_the_centre() -> None:
    image = Image.new("RGB", (300, 100), RED)
    image.paste(BLUE, (100, 0, 200, 100))
    covered = resize(image, (40, 40), "cover", WHITE)
    assert covered.size == (40, 40)
    assert covered.getpixel((20, 20)) == BLUE
    assert covered.getpixel((5, 5)) == BLUE


def test_contain_pads_with_the_matte() -> None:
    contained = resize(Image.new("RGB", (300, 100), RED), (90, 90), "contain", BLUE)
    assert contained.size == (90, 90)
    assert contained.getpixel((45, 45)) == RED
    assert contained.crop((0, 0, 90, 30)).getcolors() == [(2700, BLUE)]
    assert contained.crop((0, 60, 90, 90)).getcolors() == [(2700, BLUE)]


def test_stretch_shows_everything() -> None:
    image = Image.new("RGB", (300, 100), RED)
    image.paste(BLUE, (150, 0, 300, 100))
    stretched = resize(image, (40, 40), "stretch", WHITE)
    assert stretched.getpixel((2, 20)) == RED
    assert stretched.getpixel((37, 20)) == BLUE


def test_colours_under_transparency_do_not_bleed() -> None:
    image = Image.new("RGBA", (64, 64), (0, 255, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 32, 64))
    small = resize(image, (16, 16), "stretch", WHITE)
    visible = ImageChops.multiply(small.getchannel("G"), small.getchannel("A"))
    assert visible.getextrema() == (0, 0)


@given(
    have=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    want=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    fit=st.sampled_from(["cover", "contain", "stretch"]),
    mode=st.sampled_from(["RGB", "RGBA"]),
)
@settings(max_examples=150, deadline=None)
def test_any_size_becomes_exactly_the_asked_size(have: Size, want: Size, fit: Fit, mode: str) -> None:
    resized = resize(Image.new(mode, have, RED), want, fit, RED)
    assert (resized.mode, resized.size) == (mode, want)
    assert resized.convert("RGB").getcolors() == [(want[0] * want[1], RED)]
