"""Orders and events can be stored as JSON."""

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from service.bases import Source
from service.imaging.formats import Encoding, JpegEncoding, PngEncoding, WebpEncoding
from service.imaging.frame import Frame
from service.imaging.plan import ExportPlan, ExportWarning, Picture
from service.orders import Order, Received, Sent, Variation, VariationMetadata
from service.publishing import Export, ExportSet

BASE = Source("/uploads/base.png", "ab" * 32, 12_345, "png")
PLAN = ExportPlan(Frame(1280, 720, (16, 9), 2560), "contain", 2500, (1, 2, 3), "keep")
ENCODINGS: tuple[Encoding, ...] = (PngEncoding(3, True), JpegEncoding(70, True, "4:4:4"), WebpEncoding(80, False, 6))
EXPORT = Export(
    "PNG", "/static/output/a.png", "output/a.png", 9, "2024-01-15T10:30:45.123456+00:00", 16, 9, "image/png", ""
)
EXPORTS = ExportSet(Picture(1376, 768, "png"), (16, 9), True, {"png": EXPORT}, (ExportWarning("a", "b", "webp"),))
METADATA = VariationMetadata(
    "draw", "emulator", "16:9", 1376, 768, "image/png", "cd" * 32, {"totalTokenCount": 1290}, None, (16, 9), True
)


@pytest.mark.parametrize(
    "value",
    [
        Order("My script"),
        Order("Zwei\nZeilen", BASE, "21:9", 4, "gemini-3-pro-image", "4K", False, PLAN, ENCODINGS),
        Order("My script", encodings=tuple(reversed(ENCODINGS))),
        Sent("var-1"),
        Received("var-1", "generated/req_1.png", 123),
        Variation("var-2", "generated/req_2.png", METADATA, EXPORTS),
    ],
)
def test_orders_and_events_survive_a_round_trip_through_json(value: Any) -> None:
    adapter = TypeAdapter(type(value))
    text = json.dumps(json.loads(adapter.dump_json(value)))
    assert adapter.validate_json(text) == value
