import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from service.imaging.containers import look_into
from service.imaging.pipeline import STEPS, finish
from service.imaging.plan import ExportPlan, Fit, Frame
from tests.imaging import icc, pictures
from tests.imaging.pictures import RGB_ALPHA

RED, BLUE = (255, 0, 0), (0, 0, 255)


def finished(data: bytes, plan: ExportPlan, base: Image.Image | None = None) -> Image.Image:
    container = look_into(data, 40_000_000)
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
    image, warnings = finish(look_into(data, 40_000_000), ExportPlan(), pictures.SIZE)
    assert image.tobytes() == finished(pictures.jpeg(), ExportPlan()).tobytes()
    assert [(back.code, back.format) for back in warnings] == [("profile_ignored", None)]


def test_a_profile_for_ink_is_ignored_on_an_rgb_picture() -> None:
    data = pictures.jpeg(profile=icc.cmyk_profile())
    _, warnings = finish(look_into(data, 40_000_000), ExportPlan(), pictures.SIZE)
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
