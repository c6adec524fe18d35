"""Orders and events can be stored as JSON."""

import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import TypeAdapter

from service.bases import Source
from service.imaging.formats import AvifEncoding, Encoding, JpegEncoding, PngEncoding, WebpEncoding
from service.imaging.frame import Frame
from service.imaging.plan import Budgets, ExportPlan, ExportWarning, Picture
from service.orders import Order, Received, Sent, Variation, VariationMetadata
from service.publishing import Export, ExportSet
from service.stored import (
    StoredBase,
    Unreadable,
    order_from_json,
    order_to_json,
    variation_from_json,
    variation_to_json,
)

BASE = Source("/uploads/base.png", "ab" * 32, 12_345, "png")
PLAN = ExportPlan(
    Frame(1280, 720, (16, 9), 2560), "contain", 2500, (1, 2, 3), "keep", (2500, 10_000), "generated",
    Budgets(200_000, (("png", 300_000), ("avif", 9)), may_resize=True),
)  # fmt: skip
ENCODINGS: tuple[Encoding, ...] = (
    PngEncoding(3, True), JpegEncoding(70, True, "4:4:4"), WebpEncoding(80, False, 6), AvifEncoding(50, 6),
)  # fmt: skip
EXPORT = Export(
    "PNG", "/static/output/a.png", "output/a.png", 9, "2024-01-15T10:30:45.123456+00:00", 16, 9, "image/png", "",
    None, 64,
)  # fmt: skip
EXPORTS = ExportSet(
    Picture(1376, 768, "png", c2pa=True), (16, 9), True, {"png": EXPORT, "avif": replace(EXPORT, quality=40)},
    (ExportWarning("a", "b", "webp"),), "compositeWithTrainedAlgorithmicMedia",
)  # fmt: skip
METADATA = VariationMetadata(
    "draw", "emulator", "16:9", 1376, 768, "image/png", "cd" * 32, {"totalTokenCount": 1290}, None, (16, 9), True,
    True, "compositeWithTrainedAlgorithmicMedia",
)  # fmt: skip
VARIATION = Variation("var-2", "generated/req_2.png", METADATA, EXPORTS)


@pytest.mark.parametrize(
    "value",
    [
        Order("My script"),
        Order("Zwei\nZeilen", BASE, "21:9", 4, "gemini-3-pro-image", "4K", False, PLAN, ENCODINGS),
        Order("My script", encodings=tuple(reversed(ENCODINGS))),
        Sent("var-1"),
        Received("var-1", "generated/req_1.png", 123),
        VARIATION,
    ],
)
def test_orders_and_events_survive_a_round_trip_through_json(value: Any) -> None:
    adapter = TypeAdapter(type(value))
    text = json.dumps(json.loads(adapter.dump_json(value)))
    assert adapter.validate_json(text) == value


@pytest.mark.parametrize("plan", [None, PLAN, ExportPlan(focus="auto"), ExportPlan(budgets=Budgets(9))])
def test_an_order_survives_the_ledger(plan: ExportPlan | None) -> None:
    order = Order("Zwei\nZeilen", None, "21:9", 4, "gemini-3-pro-image", "4K", False, plan, ENCODINGS, "req_1")
    base = StoredBase("uploads/req_1_image.png", "ab" * 32, 12_345, "png")
    assert order_from_json(order_to_json(order, base), "req_1") == (order, base)


def test_a_variation_survives_the_ledger() -> None:
    assert variation_from_json(variation_to_json(VARIATION)) == VARIATION


def test_a_stored_time_that_is_none_is_unreadable() -> None:
    stored = json.loads(variation_to_json(VARIATION))
    for export in stored["exported"]["exports"].values():
        export["exported_at"] = "yesterday"
    with pytest.raises(Unreadable):
        variation_from_json(json.dumps(stored))
