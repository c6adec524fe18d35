"""Sizes read from headers, and the estimated cost of exports."""

import io
import os

import pytest
from PIL import Image

from service.imaging.cost import LARGE_PIXELS, export_seconds, is_large
from service.imaging.formats import AvifEncoding, Encoding, JpegEncoding, PngEncoding, WebpEncoding
from service.imaging.frame import Frame
from service.imaging.plan import Budgets, ExportPlan
from service.imaging.probe import stored_size
from tests.imaging import pictures


def saved(size: tuple[int, int], kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "teal").save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        saved((123, 45), "PNG"),
        saved((123, 45), "JPEG"),
        saved((123, 45), "JPEG", progressive=True, icc_profile=os.urandom(200_000), comment=b"c" * 60_000),
        saved((123, 45), "WEBP"),
        saved((123, 45), "WEBP", lossless=True),
        saved((123, 45), "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
    ],
)
def test_the_size_is_read_from_the_headers(data: bytes) -> None:
    assert stored_size(io.BytesIO(data)) == (123, 45)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe0\0\0" + bytes(20),
        b"\xff\xd8" + b"\xff\xe0\0\2" * 2_000,
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n" + bytes(40),
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"RIFF\0\0\0\0WEBPABCD" + bytes(20),
        pictures.jpeg()[:100],
    ],
)
def test_a_file_without_a_size_has_none(data: bytes) -> None:
    assert stored_size(io.BytesIO(data)) is None


TRIO = (PngEncoding(), JpegEncoding(), WebpEncoding())


def test_the_cost_grows_with_the_pixels_decoded_and_encoded() -> None:
    small, large = (64, 64), (4_000, 3_000)
    tiny, huge = ExportPlan(Frame(64, 64)), ExportPlan(Frame(8192, 8192))
    assert export_seconds(huge, TRIO, [small]) > 100 * export_seconds(tiny, TRIO, [small])
    assert export_seconds(tiny, TRIO, [large]) > 10 * export_seconds(tiny, TRIO, [small])
    both = export_seconds(tiny, TRIO, [small, large])
    assert both == pytest.approx(export_seconds(tiny, TRIO, [large]), rel=0.01)


def test_the_cost_grows_with_slow_encodings_and_budgets() -> None:
    def cost(*encodings: Encoding, budgets: Budgets | None = None) -> float:
        return export_seconds(ExportPlan(Frame(2_000, 2_000), budgets=budgets or Budgets()), encodings, [(64, 64)])

    assert cost(JpegEncoding()) < cost(WebpEncoding()) < cost(AvifEncoding()) < cost(AvifEncoding(speed=6)) / 5
    assert cost(*TRIO) < cost(*TRIO, AvifEncoding())
    assert cost(*TRIO, budgets=Budgets(any=9)) > 3 * cost(*TRIO)
    assert cost(*TRIO) < cost(*TRIO, budgets=Budgets(each=(("webp", 9),))) < cost(*TRIO, budgets=Budgets(any=9))
    assert cost(*TRIO, budgets=Budgets(each=(("avif", 9),))) == cost(*TRIO)


def test_an_impossible_size_costs_little() -> None:
    assert export_seconds(ExportPlan(Frame(width=8192)), TRIO, [(1, 40_000)]) < 0.01


def test_every_frame_costs_as_much_as_a_picture_but_a_jpeg_has_one() -> None:
    def seconds(frames: int, *encodings: Encoding) -> float:
        return export_seconds(ExportPlan(), encodings, [(640, 360)], frames)

    assert seconds(100, WebpEncoding()) > 50 * seconds(1, WebpEncoding())
    assert seconds(100, WebpEncoding(), JpegEncoding()) == pytest.approx(seconds(100, WebpEncoding()), rel=0.05)


def test_an_animation_is_large_by_the_pixels_that_it_has_or_becomes() -> None:
    assert LARGE_PIXELS == 64_000_000
    assert not is_large(ExportPlan(), (8_000, 1_000), 8)
    assert is_large(ExportPlan(), (8_001, 1_000), 8)
    assert is_large(ExportPlan(Frame(1, 1)), (8_001, 1_000), 8)
    assert is_large(ExportPlan(Frame(8_001, 1_000)), (1, 1), 8)
    # A still is none, whatever its size.
    assert not is_large(ExportPlan(), (10_000, 10_000), 1)
    assert not is_large(ExportPlan(Frame(width=8192)), (1, 40_000), 8)
