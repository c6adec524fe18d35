import pytest
from PIL import Image

from service.imaging.frame import Frame, Size
from service.imaging.picture_warnings import picture_warnings
from service.imaging.plan import ExportOutcome, ExportPlan, Fit
from service.imaging.probe import probe
from tests.imaging import pictures
from tests.imaging.workbench import Bench

WIDE = Frame(ratio=(16, 9), longest=1280)


def details_of(size: Size, frame: Frame, fit: Fit = "cover", orientation: int | None = None) -> list[str]:
    container = probe(pictures.saved(Image.new("L", size), "PNG", None, orientation), 10**8)
    plan = ExportPlan(frame, fit)
    found = list(picture_warnings(container, plan, frame.size(container.upright_size)))
    assert {(warning.code, warning.format) for warning in found} <= {("ratio_ignored", None)}
    return [warning.detail for warning in found]


def animation(kind: str, count: int) -> bytes:
    frames = [Image.new("RGB", (16, 16), (level * 40, 0, 0)) for level in range(count)]
    return pictures.saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


def test_a_warning_names_both_sizes_and_the_share_that_was_cut() -> None:
    assert details_of((1024, 1024), WIDE) == [
        "the picture came as 1024 x 1024, not in the asked ratio; exported as 1024 x 576, 44 % of it was cut"
    ]


@pytest.mark.parametrize(
    ("size", "frame", "fit", "words"),
    [
        ((1024, 1024), Frame(400, 400, (16, 9)), "cover", "exported as 400 x 400, 0 % of it was cut"),
        ((1024, 1024), Frame(400, 399, (16, 9)), "cover", "exported as 400 x 399, less than 1 % of it was cut"),
        ((1024, 1024), Frame(400, 100, (16, 9)), "cover", "exported as 400 x 100, 75 % of it was cut"),
        ((1024, 1024), Frame(100, 400, (16, 9)), "cover", "exported as 100 x 400, 75 % of it was cut"),
        ((1024, 1024), Frame(160, None, (16, 9)), "cover", "exported as 160 x 90, 44 % of it was cut"),
        ((1024, 1024), Frame(160, None, (16, 9)), "contain", "exported as 160 x 90, 0 % was cut, it was padded"),
        ((1024, 1024), Frame(160, None, (16, 9)), "stretch", "exported as 160 x 90, 0 % was cut, it was stretched"),
        ((768, 1376), WIDE, "cover", "exported as 768 x 432, 69 % of it was cut"),
    ],
)
def test_the_warning_says_what_was_done_to_the_picture(size: Size, frame: Frame, fit: Fit, words: str) -> None:
    [detail] = details_of(size, frame, fit)
    assert detail.endswith(words)


@pytest.mark.parametrize(
    ("size", "count"),
    [((1376, 768), 0), ((103, 100), 0), ((97, 100), 0), ((1031, 1000), 1), ((969, 1000), 1), ((1030, 1000), 0)],
)
def test_ratios_within_three_per_cent_are_the_same(size: Size, count: int) -> None:
    ratio = (16, 9) if size == (1376, 768) else (1, 1)
    assert len(details_of(size, Frame(ratio=ratio))) == count


def test_the_ratio_is_that_of_the_upright_picture() -> None:
    assert details_of((768, 1376), WIDE, orientation=6) == []
    assert len(details_of((1376, 768), WIDE, orientation=6)) == 1


def test_a_frame_without_a_ratio_has_none_to_ignore() -> None:
    assert details_of((100, 300), Frame(longest=50)) == []
    assert details_of((100, 300), Frame(300, 100)) == []


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("count", [1, 3])
def test_an_animation_has_a_warning_and_one_frame_is_a_still(bench: Bench, kind: str, count: int) -> None:
    outcome = bench.export(animation(kind, count))
    details = ["the picture is an animation of 3 frames: the first was exported"] if count > 1 else []
    assert [(warning.code, warning.detail) for warning in outcome.warnings] == [
        ("animation_ignored", detail) for detail in details
    ]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_base_has_no_such_warnings(bench: Bench, kind: str) -> None:
    plan = ExportPlan(WIDE)
    outcome = bench.run(pictures.saved(Image.new("RGB", (160, 90)), "PNG"), plan, base=animation(kind, 3))
    assert isinstance(outcome, ExportOutcome)
    assert (outcome.composited, outcome.warnings) == (True, ())
