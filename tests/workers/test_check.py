"""Checking a base prepares its pixels for the exports, which are the same as if each had decoded it."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from PIL import Image

from service.imaging.containers.container import Container
from service.imaging.decode import decode
from service.imaging.errors import ImagingError, TooCostly, Undecodable
from service.imaging.formats import JpegEncoding, PngEncoding
from service.imaging.frame import Frame
from service.imaging.plan import (
    CheckJob,
    CheckOutcome,
    ExportJob,
    ExportOutcome,
    ExportPlan,
    Fit,
    Picture,
    Pixels,
    Rendition,
)
from service.workers import worker
from tests.imaging import pictures
from tests.imaging.pictures import GREY, RGB, RGB_ALPHA
from tests.imaging.workbench import Bench

BASES = {
    "upright": pictures.jpeg(),
    "turned": pictures.jpeg(orientation=6),
    "transparent": pictures.png(8, RGB_ALPHA),
    "of 16 bits": pictures.png(16, GREY),
    "with a broken profile": pictures.png(8, RGB, profile=b"no profile"),
    "of the very size": pictures.png(8, RGB, size=(48, 27)),
}
FITS: tuple[Fit, ...] = ("cover", "contain", "stretch")
FRAMES = (Frame(48, 27), Frame(width=48, ratio=(16, 9)), Frame(width=48), Frame(longest=40))


def checked(bench: Bench, base: bytes, *renditions: Rendition) -> CheckOutcome:
    source = bench.folder / "base"
    source.write_bytes(base)
    for each in renditions:
        Path(each.target).touch()
    outcome = worker.run(CheckJob(str(source), renditions))
    assert isinstance(outcome, CheckOutcome), outcome
    return outcome


def pixels_of(bench: Bench, base: bytes, job: ExportJob) -> Pixels:
    size = job.plan.frame.size(pictures.SIZE)
    [made] = checked(bench, base, Rendition(job.plan, str(bench.folder / "pixels"), size)).made
    assert made is not None
    assert made.size == size
    return made


@pytest.mark.parametrize(("fit", "frame", "base"), list(product(FITS, FRAMES, BASES)))
def test_an_export_over_prepared_pixels_is_the_same_to_the_byte(
    bench: Bench, fit: Fit, frame: Frame, base: str
) -> None:
    plan = ExportPlan(frame, fit, 4_321, (1, 200, 30), "keep", "auto")
    job = bench.job(pictures.png(8, RGB), plan, BASES[base], (PngEncoding(1),))
    before, made_before = worker.run(job), bench.made()
    pixels = pixels_of(bench, BASES[base], job)
    # Only the pixels are there.
    Path(job.base or "").unlink()
    after = worker.run(replace(job, prepared=pixels))
    assert after == before
    assert isinstance(after, ExportOutcome)
    assert after.composited
    assert bench.made() == made_before


@pytest.mark.parametrize("fault", ["absent", "short", "long", "of another size"])
def test_without_the_right_pixels_the_base_is_decoded(bench: Bench, fault: str) -> None:
    job = bench.job(pictures.png(8, RGB), ExportPlan(Frame(48, 27)), pictures.jpeg(), (PngEncoding(1),))
    before, made_before = worker.run(job), bench.made()
    pixels = pixels_of(bench, pictures.jpeg(), job)
    path = Path(pixels.path)
    match fault:
        case "absent":
            path.unlink()
        case "short":
            path.write_bytes(path.read_bytes()[:-1])
        case "long":
            path.write_bytes(path.read_bytes() + b"x")
        case _:
            pixels = replace(pixels, size=(27, 48))
    assert worker.run(replace(job, prepared=pixels)) == before
    assert bench.made() == made_before


def test_one_decode_makes_every_rendition(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Container] = []

    def counted(container: Container) -> Image.Image:
        decoded.append(container)
        return decode(container)

    monkeypatch.setattr(worker, "decode", counted)
    monkeypatch.setattr("service.imaging.pipeline.decode", decode_again)
    jpeg = JpegEncoding(90)
    outcome = checked(
        bench,
        pictures.png(8, RGB_ALPHA),
        Rendition(ExportPlan(Frame(48, 27)), str(bench.folder / "pixels"), (48, 27)),
        Rendition(ExportPlan(Frame(longest=30)), str(bench.folder / "jpeg"), encoding=jpeg),
    )
    assert outcome.picture == Picture(*pictures.SIZE, "png")
    assert [made and made.size for made in outcome.made] == [(48, 27), (30, 20)]
    assert len(decoded) == 1
    assert (bench.folder / "pixels").stat().st_size == 3 * 48 * 27
    with Image.open(bench.folder / "jpeg") as made:
        assert (made.format, made.size) == ("JPEG", (30, 20))


def decode_again(container: object) -> None:
    raise AssertionError("decoded twice")


def test_the_jpeg_is_the_one_that_an_export_makes(bench: Bench) -> None:
    plan, data = ExportPlan(Frame(longest=50)), pictures.png(8, RGB_ALPHA)
    checked(bench, data, Rendition(plan, str(bench.folder / "jpeg"), encoding=JpegEncoding(90)))
    bench.export(data, plan, encodings=(JpegEncoding(90),))
    assert (bench.folder / "jpeg").read_bytes() == bench.made("jpeg")


@pytest.mark.parametrize("target", ["/dev/full", "/nowhere/at/all"])
def test_a_good_picture_whose_rendition_finds_no_space_is_good(bench: Bench, target: str) -> None:
    source = bench.folder / "base"
    source.write_bytes(pictures.jpeg())
    outcome = worker.run(CheckJob(str(source), (Rendition(ExportPlan(), target, (8, 8)),)))
    assert outcome == CheckOutcome(Picture(*pictures.SIZE, "jpeg"), (None,))


def test_a_size_that_cannot_be_had_is_no_fault_of_the_picture(bench: Bench) -> None:
    plan = ExportPlan(Frame(width=8192))
    outcome = checked(bench, pictures.png(8, RGB, size=(1, 40)), Rendition(plan, str(bench.folder / "pixels")))
    assert outcome.made == (None,)


@pytest.mark.parametrize("data", [b"", pictures.jpeg()[:700], pictures.png(8, RGB)[:-40]])
def test_a_bad_picture_is_refused(bench: Bench, data: bytes) -> None:
    source = bench.folder / "base"
    source.write_bytes(data)
    refusal = worker.run(CheckJob(str(source), (Rendition(ExportPlan(), str(bench.folder / "pixels"), (8, 8)),)))
    assert isinstance(refusal, ImagingError)
    assert not (bench.folder / "pixels").exists()


@pytest.mark.parametrize("data", [b"", pictures.jpeg()[:700]])
def test_a_required_base_that_cannot_be_used_refuses_the_job(bench: Bench, data: bytes) -> None:
    job = bench.job(pictures.jpeg(), base=data)
    assert isinstance(worker.run(replace(job, base_required=True)), ImagingError)
    assert isinstance(worker.run(job), ExportOutcome)


def test_a_required_base_without_memory_is_too_costly(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(*_: object) -> None:
        raise MemoryError

    job = bench.job(pictures.jpeg(), base=pictures.jpeg())
    monkeypatch.setattr(worker, "finish", hungry)
    refusal = worker.run(replace(job, base_required=True))
    assert isinstance(refusal, TooCostly)
    assert not isinstance(refusal, Undecodable)
