"""16-bit RGB in a matrix profile, compared with the formulas that the profile stands for."""

from random import Random
from struct import pack
from zlib import compress

import pytest
from PIL import Image, ImageChops

from service.imaging import matrix
from service.imaging.matrix import convert_deep, matrix_profile
from service.imaging.pipeline import finish
from service.imaging.plan import ExportPlan
from service.imaging.probe import probe
from service.imaging.profiles import srgb
from tests.imaging import icc, pictures
from tests.imaging.pictures import GREY, GREY_ALPHA, RGB, RGB_ALPHA, chunk
from tests.imaging.test_cicp import PRIMARIES, SRGB, expected, from_linear, to_linear

TRANSFERS = {1.0: 8, 2.2: 4, icc.SRGB_CURVE: SRGB}
P3 = icc.rgb_profile(*PRIMARIES[12], icc.D65, 2.2)


def dark_and_saturated() -> list[tuple[int, int, int]]:
    """Colours for which 8 bits a channel are worst: steep parts of a curve, and the edge of sRGB."""
    random = Random(7)

    def level(exponent: int) -> int:
        return round(65535 * random.random() ** exponent)

    return [(level(1), level(exponent), level(1)) for exponent in (1, 2, 4, 6) for _ in range(500)]


@pytest.mark.parametrize("curve", TRANSFERS)
@pytest.mark.parametrize("primaries", PRIMARIES)
def test_every_level_is_exact_within_one(primaries: int, curve: icc.Curve) -> None:
    levels = dark_and_saturated()
    profile = icc.rgb_profile(*PRIMARIES[primaries], icc.D65, curve)
    row = b"\0" + b"".join(pack(">3H", *each) for each in levels)
    data = pictures.png_of((len(levels), 1), 16, RGB, [chunk(b"iCCP", b"test\0\0" + compress(profile))], row)
    container = probe(data, 1_000_000)
    image, warnings = finish(container, ExportPlan(), container.size)
    want = [level for red, green, blue in levels
            for level in expected((red / 65535, green / 65535, blue / 65535), primaries, TRANSFERS[curve])]  # fmt: skip
    assert max(abs(ours - theirs) for ours, theirs in zip(image.tobytes(), want, strict=True)) <= 1
    assert warnings == ()


@pytest.mark.parametrize("colour", [GREY, GREY_ALPHA])
@pytest.mark.parametrize("curve", TRANSFERS)
def test_a_grey_picture_in_an_rgb_profile_is_as_exact(colour: int, curve: icc.Curve) -> None:
    profile = icc.rgb_profile(*PRIMARIES[12], icc.D65, curve)
    container = probe(pictures.png(16, colour, profile=profile), 1_000_000)
    image, warnings = finish(container, ExportPlan(alpha="keep"), container.size)
    step = 2 if colour == GREY_ALPHA else 1
    samples = [value for line in pictures.samples(16, colour, pictures.SIZE) for value in line[::step]]
    want = [255 * from_linear(to_linear(sample / 65535, TRANSFERS[curve])) for sample in samples]
    for channel in "RGB":
        assert list(image.getchannel(channel).tobytes()) == pytest.approx(want, abs=1.0)
    assert (image.getbands()[3:], warnings) == (("A",) if colour == GREY_ALPHA else (), ())


def test_alpha_stays() -> None:
    data = pictures.png(16, RGB_ALPHA, profile=P3)
    container = probe(data, 1_000_000)
    image, _ = finish(container, ExportPlan(alpha="keep"), container.size)
    [alpha] = [pictures.image("RGBA").getchannel("A")]
    assert max(ImageChops.difference(image.getchannel("A"), alpha).tobytes()) <= 1


def test_strips_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    upper, lower = pictures.image("RGB"), pictures.image("RGB").rotate(180)
    profile = matrix_profile(P3, srgb())
    assert profile is not None
    whole = convert_deep(upper, lower, profile)
    monkeypatch.setattr(matrix, "_STRIP_PIXELS", 7 * upper.width)
    assert convert_deep(upper, lower, profile).tobytes() == whole.tobytes()


@pytest.mark.parametrize(
    "profile",
    [
        icc.grey_profile(2.2),
        icc.cmyk_profile(),
        P3.replace(b"cprt", b"A2B0"),
        P3.replace(b"cprt", b"D2B1"),
        P3.replace(b"rTRC", b"cprt"),
        P3.replace(b"XYZ ", b"Lab ", 1),
        P3[:200],
        P3[:130],
        b"",
    ],
    ids=["grey", "cmyk", "lut", "float lut", "no curve", "lab", "cut", "cut table", "empty"],
)
def test_another_kind_of_profile_is_left_to_littlecms(profile: bytes) -> None:
    assert matrix_profile(profile, srgb()) is None


def test_a_curve_that_begins_above_black_is_left_to_littlecms() -> None:
    # Black point compensation would have something to do.
    curve = pack(">4s4xI2H", b"curv", 2, 1000, 65535)
    table = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    assert matrix_profile(icc.rgb_profile_of(*PRIMARIES[12], icc.D65, table), srgb()) is None


def test_the_curve_of_a_table_is_interpolated() -> None:
    image = Image.new("RGB", (1, 1), (128, 128, 128))
    curve = pack(">4s4xI2H", b"curv", 2, 0, 65535)
    table = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    profile = matrix_profile(icc.rgb_profile_of(*PRIMARIES[1], icc.D65, table), srgb())
    assert profile is not None
    assert convert_deep(image, image, profile).getpixel((0, 0)) == (188, 188, 188)
