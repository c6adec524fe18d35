import pickle
from typing import Any

import pytest

from service.imaging.errors import ImagingError, ImpossibleFrame, TooCostly, TooManyPixels, Undecodable, UnsupportedType
from service.imaging.formats import JpegEncoding, PngEncoding, WebpEncoding
from service.imaging.frame import Frame
from service.imaging.plan import (
    CheckJob,
    CheckOutcome,
    ExportJob,
    ExportOutcome,
    ExportPlan,
    ExportWarning,
    InspectJob,
    MadeFile,
    Picture,
    Pixels,
    Rendition,
    WorkerLimits,
)

FILE = MadeFile("png", 12, "00" * 32, (3, 4))
BACK = ExportWarning("encode_failed", "no WebP", "webp")
PIXELS = Pixels("/t/p", (3, 4), (BACK,))
PLAN = ExportPlan(Frame(width=10, ratio=(16, 9)), "contain", 1, (1, 2, 3), "keep")


@pytest.mark.parametrize(
    "value",
    [
        PLAN,
        PLAN.frame,
        PngEncoding(1),
        JpegEncoding(50, True, "4:4:4"),
        WebpEncoding(50, True, 2),
        ExportJob("/t/a", "/t/b", PLAN, ((PngEncoding(), "/t/c"),), PIXELS, True),
        InspectJob("/t/a"),
        CheckJob("/t/a", (Rendition(PLAN, "/t/b", (3, 4)), Rendition(PLAN, "/t/c", encoding=JpegEncoding()))),
        CheckOutcome(Picture(3, 4, "png"), (PIXELS, None)),
        PIXELS,
        Picture(3, 4, "jpeg"),
        FILE,
        BACK,
        ExportOutcome(Picture(3, 4, "webp"), (1, 2), True, (FILE,), (BACK,)),
        WorkerLimits(5, 6),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_jobs_and_outcomes_survive_pickling(value: Any, protocol: int) -> None:
    copy = pickle.loads(pickle.dumps(value, protocol))
    assert copy == value
    assert type(copy) is type(value)


@pytest.mark.parametrize(
    "kind", [ImagingError, UnsupportedType, Undecodable, TooManyPixels, TooCostly, ImpossibleFrame]
)
def test_errors_survive_pickling(kind: type[ImagingError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("why")))
    assert (type(copy), copy.detail, copy.code, str(copy)) == (kind, "why", kind.code, "why")
