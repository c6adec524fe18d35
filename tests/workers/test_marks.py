"""Which exports are marked as generated: by the plan, by the picture, and by a base that is blended."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from service.imaging.containers.container import Container
from service.imaging.formats import AvifEncoding, Format
from service.imaging.frame import Frame, Size
from service.imaging.pipeline import finish
from service.imaging.plan import (
    CheckJob,
    CheckOutcome,
    ExportPlan,
    ExportWarning,
    InspectJob,
    Picture,
    Provenance,
    Rendition,
)
from service.imaging.probe import probe
from service.imaging.provenance import Mark, packet
from service.workers import worker
from tests.imaging import pictures
from tests.imaging.pictures import RGB, chunk
from tests.imaging.workbench import TRIO, Bench

GENERATED: Mark = "trainedAlgorithmicMedia"
COMPOSITE: Mark = "compositeWithTrainedAlgorithmicMedia"
MARKS: tuple[Mark | None, ...] = (None, GENERATED, COMPOSITE)
Finished = tuple[Image.Image, tuple[ExportWarning, ...]]
MANIFEST = pictures.png(8, RGB, extra=chunk(b"caBX", b"any"))


def marked(mark: Mark | None) -> bytes:
    return pictures.jpeg(xmp=packet(mark)) if mark else pictures.jpeg()


def expected(provenance: Provenance, share: int, picture: Mark | None, base: Mark | None) -> Mark | None:
    if share == 10_000:
        return GENERATED if provenance == "generated" else picture
    return COMPOSITE if provenance == "generated" or picture or base else None


def written(bench: Bench, name: Format) -> Mark | None:
    return probe(bench.made(name), 1_000_000).mark


@pytest.mark.parametrize("picture", MARKS)
@pytest.mark.parametrize("provenance", ["keep", "generated"])
def test_without_a_base_the_mark_is_the_pictures(bench: Bench, provenance: Provenance, picture: Mark | None) -> None:
    outcome = bench.export(marked(picture), ExportPlan(provenance=provenance), encodings=(*TRIO, AvifEncoding()))
    mark = GENERATED if provenance == "generated" else picture
    assert outcome.mark == written(bench, "png") == written(bench, "jpeg") == written(bench, "webp") == mark
    assert bench.made("avif").count(packet(mark) if mark else b"adobe") == (1 if mark else 0)
    assert [file.size for file in outcome.files] == [len(bench.made(file.format)) for file in outcome.files]


@pytest.mark.parametrize("base", MARKS)
@pytest.mark.parametrize("picture", MARKS)
@pytest.mark.parametrize("share", [0, 7_000, 9_999, 10_000])
@pytest.mark.parametrize("provenance", ["keep", "generated"])
def test_a_base_counts_if_a_part_of_it_is_blended(
    bench: Bench, provenance: Provenance, share: int, picture: Mark | None, base: Mark | None
) -> None:
    plan = ExportPlan(Frame(8, 8), share=share, provenance=provenance)
    outcome = bench.export(marked(picture), plan, marked(base))
    assert outcome.composited
    assert outcome.mark == written(bench, "jpeg") == expected(provenance, share, picture, base)


@pytest.mark.parametrize("base", MARKS)
@pytest.mark.parametrize("share", [7_000, 10_000])
def test_a_prepared_base_has_its_mark(bench: Bench, share: int, base: Mark | None) -> None:
    plan = ExportPlan(Frame(8, 8), share=share)
    job = bench.job(marked(None), plan, marked(base))
    pixels = bench.folder / "pixels"
    pixels.touch()
    checked = worker.run(CheckJob(str(job.base), (Rendition(plan, str(pixels), (8, 8)),)))
    assert isinstance(checked, CheckOutcome)
    Path(str(job.base)).unlink()
    outcome = worker.run(replace(job, prepared=checked.made[0]))
    assert outcome.mark == expected("keep", share, None, base)  # type: ignore[union-attr]  # fails for an error


@pytest.mark.parametrize(("provenance", "mark"), [("keep", None), ("generated", GENERATED)])
def test_a_base_that_was_left_out_does_not_count(bench: Bench, provenance: Provenance, mark: Mark | None) -> None:
    outcome = bench.export(marked(None), ExportPlan(provenance=provenance), marked(GENERATED)[:700])
    assert [warning.code for warning in outcome.warnings] == ["composite_failed"]
    assert outcome.mark == written(bench, "jpeg") == mark


def test_a_base_too_large_for_the_memory_does_not_count(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def short_of_memory(
        container: Container, plan: ExportPlan, size: Size, base: Image.Image | None = None, **options: Any
    ) -> Finished:
        if base is not None:
            raise MemoryError
        return finish(container, plan, size, base, **options)

    monkeypatch.setattr(worker, "finish", short_of_memory)
    outcome = bench.export(marked(None), base=marked(GENERATED))
    assert (outcome.composited, outcome.mark, written(bench, "jpeg")) == (False, None, None)


def test_a_manifest_is_told_and_not_copied(bench: Bench) -> None:
    outcome = bench.export(MANIFEST, base=pictures.jpeg())
    assert outcome.picture == Picture(96, 64, "png", c2pa=True)
    assert b"caBX" not in bench.made()
    assert not bench.export(pictures.jpeg(), base=MANIFEST).picture.c2pa
    source = bench.folder / "picture"
    source.write_bytes(MANIFEST)
    assert worker.run(InspectJob(str(source))) == Picture(96, 64, "png", c2pa=True)
