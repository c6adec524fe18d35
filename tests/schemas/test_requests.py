"""The fields of a request that exports an order again: those that are absent are as in the order."""

from typing import Any

import pytest

from service.errors import InvalidField
from service.imaging.formats import Encoding
from service.imaging.plan import Budget, ExportPlan
from service.schemas.fields import Fields
from service.schemas.requests import read_changes, read_order
from service.settings import Settings
from service.stored import order_from_json, order_to_json
from tests.conftest import MakeSettings
from tests.helpers import SCRIPT


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings()


def again(settings: Settings, before: dict[str, str], **texts: str) -> tuple[ExportPlan, list[Encoding]]:
    """An order with these fields, as the ledger returns it, exported again with other fields."""
    order = read_order(Fields({"script": SCRIPT, **before}), settings, "req_1", None)
    stored, _ = order_from_json(order_to_json(order, None), "req_1")
    plan, encodings = read_changes(Fields(texts), settings, stored)
    return plan, list(encodings)


EVERYTHING = {
    "width": "320",
    "fit": "cover",
    "focus": "0.25,1",
    "blend": "0.5",
    "formats": "webp,avif",
    "max_bytes": "avif:5000",
    "allow_resize": "on",
    "avif_quality": "40",
    "webp_lossless": "on",
    "matte": "#010203",
    "alpha": "keep",
}


def test_absent_fields_are_as_in_the_order(settings: Settings) -> None:
    order = read_order(Fields({"script": SCRIPT, **EVERYTHING}), settings, "req_1", None)
    plan, encodings = again(settings, EVERYTHING)
    assert plan == order.effective_plan(settings.matte_rgb)
    assert tuple(encodings) == order.encodings
    assert (plan.focus, plan.budgets.of("avif")) == ((2500, 10_000), Budget(5000, may_resize=True))


@pytest.mark.parametrize("texts", [{}, {"focus": "auto"}, {"formats": "avif", "max_bytes": "9"}])
def test_the_exports_of_an_order_are_always_marked_as_generated(settings: Settings, texts: dict[str, str]) -> None:
    assert again(settings, {}, **texts)[0].provenance == "generated"


def test_one_number_holds_for_formats_that_are_asked_for_now(settings: Settings) -> None:
    plan, [avif] = again(settings, {"max_bytes": "7000", "allow_resize": "on"}, formats="avif")
    assert plan.budgets.of(avif.format) == Budget(7000, may_resize=True)


def test_the_budgets_of_formats_that_are_not_asked_for_now_do_not_matter(settings: Settings) -> None:
    plan, [jpeg] = again(settings, {"max_bytes": "png:7000"}, formats="jpeg")
    assert plan.budgets.of(jpeg.format) is None


@pytest.mark.parametrize(("text", "png"), [("9", Budget(9)), ("webp:9", None)])
def test_new_budgets_replace_all_of_before(settings: Settings, text: str, png: Any) -> None:
    plan, _ = again(settings, {"max_bytes": "png:7000,webp:8000"}, max_bytes=text)
    assert (plan.budgets.of("png"), plan.budgets.of("webp")) == (png, Budget(9))


def test_allow_resize_and_budgets_change_apart(settings: Settings) -> None:
    before = {"max_bytes": "7000", "allow_resize": "on"}
    assert again(settings, before, max_bytes="9")[0].budgets.of("png") == Budget(9, may_resize=True)
    assert again(settings, before, allow_resize="off")[0].budgets.of("png") == Budget(7000)


def test_a_budget_for_a_format_of_neither_request_is_refused(settings: Settings) -> None:
    assert again(settings, {"formats": "avif"}, max_bytes="avif:9")[0].budgets.of("avif") == Budget(9)
    with pytest.raises(InvalidField, match=r"max_bytes='png:9' .* none of the requested formats, avif$"):
        again(settings, {"formats": "avif"}, max_bytes="png:9")


@pytest.mark.parametrize(
    ("before", "texts", "focus"),
    [
        ({"focus": "auto"}, {}, "auto"),
        ({"focus": "auto"}, {"width": "10"}, "auto"),
        ({"focus": "auto"}, {"focus": "0.5,0.5"}, (5000, 5000)),
        ({"focus": "auto"}, {"fit": "cover"}, "auto"),
        # A focus of before does not apply to another fit, and is no mistake of this request.
        ({"focus": "auto"}, {"fit": "contain"}, None),
        ({}, {"focus": "0,0"}, (0, 0)),
        ({"fit": "stretch"}, {"fit": "cover", "focus": "0,0"}, (0, 0)),
    ],
)
def test_the_focus_of_an_export_again(
    settings: Settings, before: dict[str, str], texts: dict[str, str], focus: Any
) -> None:
    assert again(settings, before, **texts)[0].focus == focus


@pytest.mark.parametrize(
    ("before", "texts"),
    [({"fit": "contain"}, {"focus": "0,0"}), ({"focus": "auto"}, {"focus": "auto", "fit": "stretch"})],
)
def test_a_focus_with_another_fit_is_refused_whichever_request_says_the_fit(
    settings: Settings, before: dict[str, str], texts: dict[str, str]
) -> None:
    with pytest.raises(InvalidField, match="only with fit=cover"):
        again(settings, before, **texts)
