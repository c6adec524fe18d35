from dataclasses import replace
from io import BytesIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from service.imaging.frame import Frame
from service.imaging.pipeline import STEPS, finish
from service.imaging.plan import ExportPlan, Fit, Focus
from service.imaging.probe import probe
from tests.imaging import icc, pictures
from tests.imaging.pictures import RGB_ALPHA

RED, BLUE = (255, 0, 0), (0, 0, 255)


def finished(data: bytes, plan: ExportPlan, base: Image.Image | None = None) -> Image.Image:
    container = probe(data, 40_000_000)
    image, warnings = finish(container, plan, plan.frame.size(container.upright_size), base)
    assert warnings == ()
    return image


def test_the_order_of_the_steps() -> None:
    assert [step.__name__ for step in STEPS] == ["upright", "to_srgb", "flatten", "resize", "composite"]


def test_a_turned_picture_is_framed_upright() -> None:
    image = finished(pictures.jpeg(orientation=6), ExportPlan(Frame(longest=48)))
    assert image.size == (32, 48)


def test_transparency_is_kept_when_asked_and_there_is_no_base() -> None:
    data = pictures.png(8, RGB_ALPHA)
    assert finished(data, ExportPlan(alpha="keep")).mode == "RGBA"
    assert finished(data, ExportPlan(alpha="flatten")).mode == "RGB"
    assert finished(data, ExportPlan(alpha="keep"), Image.new("RGB", pictures.SIZE)).mode == "RGB"


def test_the_share_is_the_pictures() -> None:
    data = pictures.saved(Image.new("RGB", (8, 8), (200, 0, 11)), "PNG")
    blended = finished(data, ExportPlan(share=7_000), Image.new("RGB", (8, 8), (100, 255, 0)))
    assert blended.getcolors() == [(64, (170, 77, 8))]


def test_a_broken_profile_is_ignored_and_named() -> None:
    data = pictures.jpeg(profile=b"rubbish" * 40)
    image, warnings = finish(probe(data, 40_000_000), ExportPlan(), pictures.SIZE)
    assert image.tobytes() == finished(pictures.jpeg(), ExportPlan()).tobytes()
    assert [(back.code, back.format) for back in warnings] == [("profile_ignored", None)]


def test_a_profile_for_ink_is_ignored_on_an_rgb_picture() -> None:
    data = pictures.jpeg(profile=icc.cmyk_profile())
    _, warnings = finish(probe(data, 40_000_000), ExportPlan(), pictures.SIZE)
    assert [back.code for back in warnings] == ["profile_ignored"]


@given(
    have=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    want=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    fit=st.sampled_from(["cover", "contain", "stretch"]),
    share=st.integers(0, 10_000),
    orientation=st.integers(1, 8),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_plan_gives_exactly_the_asked_size_and_pixels(
    have: tuple[int, int], want: tuple[int, int], fit: Fit, share: int, orientation: int
) -> None:
    data = pictures.saved(Image.new("RGB", have, RED), "PNG", None, orientation)
    plan = ExportPlan(Frame(width=want[0], height=want[1]), fit, share, matte=RED)
    image = finished(data, plan, Image.new("RGB", want, BLUE))
    red, blue = (share * 255 + 5_000) // 10_000, ((10_000 - share) * 255 + 5_000) // 10_000
    assert image.size == want
    assert image.getcolors() == [(want[0] * want[1], (red, 0, blue))]


@pytest.mark.parametrize("fit", ["cover", "contain", "stretch"])
def test_the_frame_decides_the_size(fit: Fit) -> None:
    image = finished(pictures.webp(), ExportPlan(Frame(ratio=(16, 9), longest=1280), fit))
    assert image.size == (96, 54)


def ramp(size: tuple[int, int]) -> Image.Image:
    """Black to white from left to right in red, from top to bottom in green."""
    across, down = (Image.linear_gradient("L").rotate(turn).resize(size, Image.Resampling.BILINEAR) for turn in (90, 0))
    return Image.merge("RGB", (across, down, across))


def edges(image: Image.Image) -> tuple[tuple[float, ...], ...]:
    """The mean red of the first and last column, the mean green of the first and last row."""
    right, bottom = image.width - 1, image.height - 1
    columns = (image.crop((x, 0, x + 1, image.height)).resize((1, 1), Image.Resampling.BOX) for x in (0, right))
    rows = (image.crop((0, y, image.width, y + 1)).resize((1, 1), Image.Resampling.BOX) for y in (0, bottom))
    red, green = ([pixel.getpixel((0, 0)) for pixel in pixels] for pixels in (columns, rows))
    return tuple(each[0] for each in red), tuple(each[1] for each in green)  # type: ignore[index]  # a tuple, of several bands


@pytest.mark.parametrize("fit", ["cover", "contain", "stretch"])
@pytest.mark.parametrize(
    ("have", "frame", "want"),
    [
        ((10_000, 2), Frame(longest=1280), (1280, 1)),
        ((2, 10_000), Frame(longest=1280), (1, 1280)),
        ((4_000, 3), Frame(width=100), (100, 1)),
        ((3, 400), Frame(height=100), (1, 100)),
        ((333, 250), Frame(longest=100), (100, 75)),
        ((333, 250), Frame(width=7), (7, 5)),
        ((333, 250), Frame(height=6), (8, 6)),
        ((3, 2), Frame(width=40), (40, 27)),
    ],
)
def test_a_size_of_the_pictures_own_ratio_keeps_the_whole_picture(
    have: tuple[int, int], frame: Frame, want: tuple[int, int], fit: Fit
) -> None:
    picture = ramp(have)
    image = finished(pictures.saved(picture, "PNG"), ExportPlan(frame, fit, matte=(9, 99, 199)))
    assert image.size == want
    whole = picture.resize(want, Image.Resampling.LANCZOS, reducing_gap=3.0)
    assert image.tobytes() == whole.tobytes()


def test_a_ramp_of_extreme_shape_runs_over_its_whole_range() -> None:
    image = finished(pictures.saved(ramp((10_000, 2)), "PNG"), ExportPlan(Frame(longest=1280)))
    (left, right), _ = edges(image)
    assert left == pytest.approx(0, abs=1)
    assert right == pytest.approx(255, abs=1)


def test_an_asked_size_or_ratio_still_crops() -> None:
    data = pictures.saved(ramp((10_000, 2)), "PNG")
    for frame in (Frame(width=1280, height=1), Frame(ratio=(16, 9), longest=1280)):
        (left, right), _ = edges(finished(data, ExportPlan(frame)))
        assert left > 50
        assert right < 205


def test_a_turned_picture_keeps_its_whole_too() -> None:
    stored = ramp((2, 10_000))
    image = finished(pictures.saved(stored, "PNG", None, 6), ExportPlan(Frame(longest=1280)))
    upright = stored.transpose(Image.Transpose.ROTATE_270)
    assert image.tobytes() == upright.resize((1280, 1), Image.Resampling.LANCZOS, reducing_gap=3.0).tobytes()


@pytest.mark.parametrize("base", [(333, 250), (666, 500)])
def test_a_base_of_the_same_ratio_lies_edge_on_edge_and_another_is_cropped(base: tuple[int, int]) -> None:
    frame = Frame(longest=100)
    size = frame.size((333, 250))
    whole = finish(probe(pictures.saved(ramp(base), "PNG"), 10**7), ExportPlan(frame), size)[0]
    assert whole.tobytes() == ramp(base).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0).tobytes()
    wide = finish(probe(pictures.saved(ramp((1000, 250)), "PNG"), 10**7), ExportPlan(frame), size)[0]
    (left, right), _ = edges(wide)
    assert left > 50
    assert right < 205


def spotted() -> bytes:
    """A wide picture with a bright, detailed spot near its right edge."""
    image = Image.new("RGB", (300, 100), RED)
    image.paste(BLUE, (250, 40, 270, 60))
    return pictures.saved(image, "PNG")


def blue_pixels(image: Image.Image) -> int:
    return sum(count for count, colour in image.getcolors(1 << 20) or () if colour == BLUE)


@pytest.mark.parametrize(("focus", "shown"), [(None, 0), ((8_667, 5_000), 400), ((0, 0), 0), ("auto", 400)])
def test_cover_crops_around_the_focus(focus: Focus, shown: int) -> None:
    image = finished(spotted(), ExportPlan(Frame(100, 100), focus=focus))
    assert image.size == (100, 100)
    assert blue_pixels(image) == shown


@pytest.mark.parametrize("plan", [ExportPlan(Frame(150, 150), "contain"), ExportPlan(Frame(150, 150), "stretch")])
@pytest.mark.parametrize("focus", [(10_000, 0), "auto"])
def test_only_cover_has_a_focus(plan: ExportPlan, focus: Focus) -> None:
    assert finished(spotted(), replace(plan, focus=focus)).tobytes() == finished(spotted(), plan).tobytes()


@pytest.mark.parametrize("frame", [Frame(longest=100), Frame(width=77), Frame(height=31), Frame(300, 100)])
@pytest.mark.parametrize("focus", [(10_000, 0), "auto"])
def test_a_focus_cuts_nothing_off_a_size_of_the_pictures_own_ratio(frame: Frame, focus: Focus) -> None:
    plan = ExportPlan(frame)
    assert finished(spotted(), replace(plan, focus=focus)).tobytes() == finished(spotted(), plan).tobytes()


def test_a_focus_is_that_of_the_upright_picture() -> None:
    data = pictures.saved(Image.open(BytesIO(spotted())).transpose(Image.Transpose.ROTATE_90), "PNG", None, 6)
    assert blue_pixels(finished(data, ExportPlan(Frame(100, 100), focus=(8_667, 5_000)))) == 400


def test_a_base_is_cropped_at_its_centre() -> None:
    plan = ExportPlan(Frame(100, 100), alpha="keep", focus="auto")
    assert blue_pixels(finished(spotted(), plan)) == 400
    assert blue_pixels(finished(spotted(), plan.for_base())) == 0
