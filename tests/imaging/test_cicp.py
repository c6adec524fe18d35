"""cICP: converted colours compared with the formulas of H.273, which need no ICC profile."""

from itertools import product
from struct import pack

import pytest
from PIL import Image

from service.imaging.cicp import Coding, UnknownColours, profile_of
from service.imaging.pipeline import finish
from service.imaging.plan import ExportPlan
from service.imaging.probe import probe
from tests.imaging import icc, pictures
from tests.imaging.pictures import GREY, GREY_ALPHA, PALETTE, RGB, RGB_ALPHA, chunk

LIMIT = 1_000_000
PRIMARIES = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
SRGB, BT709 = 13, (1, 6, 14, 15)
P3 = Coding(12, SRGB, 0, 1)


def to_linear(signal: float, transfer: int) -> float:
    if transfer in BT709:
        return signal / 4.5 if signal < 4.5 * 0.018 else ((signal + 0.099) / 1.099) ** (1 / 0.45)
    if transfer == SRGB:
        return signal / 12.92 if signal <= 0.04045 else ((signal + 0.055) / 1.055) ** 2.4
    return float(signal ** {4: 2.2, 5: 2.8, 8: 1.0}[transfer])


def from_linear(light: float) -> float:
    light = min(1.0, max(0.0, light))
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055


def expected(signals: tuple[float, float, float], primaries: int, transfer: int) -> tuple[float, ...]:
    """Levels of sRGB. All white points are D65, so there is no chromatic adaptation."""
    to_xyz = icc._primaries(*PRIMARIES[primaries], icc.D65)
    from_xyz = icc._inverse(icc._primaries(*PRIMARIES[1], icc.D65))
    red, green, blue = (to_linear(signal, transfer) for signal in signals)
    light = icc._apply(from_xyz, icc._apply(to_xyz, (red, green, blue)))
    return tuple(255 * from_linear(each) for each in light)


def finished(data: bytes, plan: ExportPlan | None = None) -> tuple[Image.Image, list[str]]:
    container = probe(data, LIMIT)
    image, warnings = finish(container, plan or ExportPlan(), container.size)
    return image, [warning.code for warning in warnings]


def cicp(coding: tuple[int, ...]) -> bytes:
    return chunk(b"cICP", bytes(coding))


def colours(depth: int, coding: Coding) -> tuple[bytes, list[tuple[float, float, float]]]:
    """A PNG with a cube of colours, and these colours."""
    steps = (0.0, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
    levels = [tuple(round(step * (2**depth - 1)) for step in steps) for steps in product(steps, repeat=3)]
    row = b"\0" + b"".join(pack(">3H" if depth == 16 else "3B", *each) for each in levels)
    data = pictures.png_of((len(levels), 1), depth, RGB, [cicp(coding)], row)
    return data, [(r / (2**depth - 1), g / (2**depth - 1), b / (2**depth - 1)) for r, g, b in levels]


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("transfer", [*BT709, 4, 5, 8, SRGB])
@pytest.mark.parametrize("primaries", PRIMARIES)
def test_an_sdr_picture_is_converted_by_its_code_points(primaries: int, transfer: int, depth: int) -> None:
    data, signals = colours(depth, Coding(primaries, transfer, 0, 1))
    image, warnings = finished(data)
    got = list(image.tobytes())
    want = [level for each in signals for level in expected(each, primaries, transfer)]
    worst = max(abs(ours - theirs) for ours, theirs in zip(got, want, strict=True))
    assert worst <= 1
    assert warnings == []


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colour", [GREY, GREY_ALPHA])
def test_a_grey_picture_follows_the_curve(colour: int, depth: int) -> None:
    image, warnings = finished(pictures.png(depth, colour, extra=cicp((9, 8, 0, 1))), ExportPlan(alpha="keep"))
    highest, step = 2**depth - 1, 2 if colour == GREY_ALPHA else 1
    samples = [value for line in pictures.samples(depth, colour, pictures.SIZE) for value in line[::step]]
    want = [255 * from_linear(sample / highest) for sample in samples]
    assert list(image.getchannel("R").tobytes()) == pytest.approx(want, abs=1.0)
    assert (image.getbands()[3:], warnings) == (("A",) if colour == GREY_ALPHA else (), [])


def test_a_grey_picture_with_a_transparent_level_follows_the_curve_at_full_depth() -> None:
    levels = range(4096)
    parts = [cicp((9, 8, 0, 1)), chunk(b"tRNS", pack(">H", 1000))]
    data = pictures.png_of((len(levels), 1), 16, GREY, parts, b"\0" + pack(f">{len(levels)}H", *levels))
    image, warnings = finished(data, ExportPlan(alpha="keep"))
    want = [255 * from_linear(level / 65535) for level in levels]
    assert list(image.getchannel("R").tobytes()) == pytest.approx(want, abs=1.0)
    assert list(image.getchannel("A").tobytes()) == [0 if level == 1000 else 255 for level in levels]
    assert warnings == []


@pytest.mark.parametrize("colour", [PALETTE, RGB, RGB_ALPHA])
def test_cicp_wins_over_iccp_and_srgb(colour: int) -> None:
    alone = finished(pictures.png(8, colour, profile=icc.DISPLAY_P3))[0]
    before = chunk(b"sRGB", b"\0") + cicp(P3)
    data = pictures.png(8, colour, profile=icc.ADOBE_RGB)
    got, warnings = finished(data[:33] + before + data[33:])
    levels = [abs(ours - theirs) for ours, theirs in zip(got.tobytes(), alone.tobytes(), strict=True)]
    assert (warnings, max(levels) <= 1) == ([], True)


def test_code_points_of_srgb_change_nothing_and_override_an_iccp() -> None:
    plain = pictures.png(8, RGB)
    data = pictures.png(8, RGB, profile=icc.ADOBE_RGB)
    assert probe(plain[:33] + cicp((1, SRGB, 0, 1)) + plain[33:], LIMIT).profile is None
    assert probe(data[:33] + cicp((1, SRGB, 0, 1)) + data[33:], LIMIT).profile is None


@pytest.mark.parametrize(
    ("coding", "words"),
    [
        ((9, 16, 0, 1), "PQ"),
        ((12, 16, 0, 1), "PQ"),
        ((9, 18, 0, 1), "HLG"),
        ((1, 13, 0, 0), "narrow range"),
        ((12, 13, 0, 0), "narrow range"),
        ((9, 14, 9, 1), "9/14/9/1"),
        ((2, 2, 0, 1), "2/2/0/1"),
        ((22, 13, 0, 1), "22/13/0/1"),
        ((1, 11, 0, 1), "1/11/0/1"),
        ((12, 13, 0, 2), "narrow range"),
    ],
)
def test_other_colours_are_taken_for_srgb_with_a_warning(coding: tuple[int, int, int, int], words: str) -> None:
    for data in (pictures.png(8, RGB), pictures.png(8, RGB, profile=icc.DISPLAY_P3)):
        container = probe(data[:33] + cicp(coding) + data[33:], LIMIT)
        image, warnings = finish(container, ExportPlan(), container.size)
        [warning] = warnings
        assert (warning.code, warning.format) == ("profile_ignored", None)
        assert words in warning.detail
        assert image.tobytes() == pictures.image().tobytes()


@pytest.mark.parametrize("coding", [b"", b"\x0c\r\0", b"\x0c\r\0\1\0"])
def test_a_damaged_chunk_is_a_warning(coding: bytes) -> None:
    image, warnings = finished(pictures.png(8, RGB, extra=chunk(b"cICP", coding)))
    assert (image.tobytes(), warnings) == (pictures.image().tobytes(), ["profile_ignored"])
    bad = bytearray(cicp(P3))
    bad[-1] ^= 1
    assert finished(pictures.png(8, RGB, extra=bytes(bad)))[1] == ["profile_ignored"]


def test_a_damaged_chunk_does_not_override_an_embedded_profile() -> None:
    data = pictures.png(8, RGB, profile=icc.DISPLAY_P3)
    image, warnings = finished(data[:33] + chunk(b"cICP", b"\x0c\r\0") + data[33:])
    assert (image.tobytes(), warnings) == (finished(data)[0].tobytes(), ["profile_ignored"])


def test_the_first_of_two_chunks_counts_and_one_after_the_palette_does_not() -> None:
    data = pictures.png(8, PALETTE)
    first = data[:33] + cicp(P3) + cicp((9, 16, 0, 1)) + data[33:]
    assert probe(first, LIMIT).profile == profile_of(P3, grey=False)
    behind = pictures.png(8, PALETTE, extra=cicp(P3))
    assert (probe(behind, LIMIT).profile, probe(behind, LIMIT).profile_fault) == (None, None)


def test_hdr_code_points_have_no_profile() -> None:
    with pytest.raises(UnknownColours, match=r"PQ \(HDR\)"):
        profile_of(Coding(9, 16, 0, 1), grey=True)
