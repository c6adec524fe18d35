"""ImageExportService, as Python programs use it."""

import asyncio
import base64
import io
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from service.bases import MAX_REFERENCE_BYTES, REFERENCE_ENCODING, REFERENCE_LONGEST
from service.errors import ImageError, NoExport, StorageFull, StorageUnavailable
from service.exports import ImageExportService, Source
from service.imaging.encode import encode
from service.imaging.plan import Budgets, ExportJob, ExportPlan, Job, Outcome
from service.settings import load_settings
from service.store.local import LocalStore
from tests.helpers import open_descriptors

KEYS = {
    "format",
    "url",
    "file_path",
    "size",
    "exported_at",
    "width",
    "height",
    "content_type",
    "sha256",
    "metadata",
    "quality",
    "colors",
    "frames",
}


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[ImageExportService]:
    async with ImageExportService(load_settings(storage_dir=tmp_path, export_workers=1)) as service:
        yield service


def png(size: tuple[int, int] = (320, 180), colour: str = "teal") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "PNG")
    return data.getvalue()


async def test_every_format_comes_with_its_file_and_link(service: ImageExportService) -> None:
    exports = await service.process_and_export_image(png(), normalize_dimensions=(160, 90), metadata={"id": 7})
    assert list(exports) == ["png", "jpeg", "webp"]
    assert exports.warnings == []
    for name, export in exports.items():
        assert set(export) == KEYS
        path = Path(export["file_path"])
        assert path.is_absolute()
        assert export["url"] == f"/static/output/{path.name}"
        assert export["size"] == path.stat().st_size
        assert export["metadata"] == {"id": 7}
        with Image.open(path) as picture:
            assert (picture.format, picture.size, picture.mode) == (name.upper(), (160, 90), "RGB")


async def test_without_dimensions_the_size_stays(service: ImageExportService) -> None:
    exports = await service.process_and_export_image(png((2001, 33)))
    assert {(export["width"], export["height"]) for export in exports.values()} == {(2001, 33)}


async def test_the_base_shows_through_by_thirty_per_cent(service: ImageExportService, tmp_path: Path) -> None:
    base = tmp_path / "base.png"
    base.write_bytes(png(colour="white"))
    exports = await service.process_and_export_image(png(colour="black"), str(base))
    with Image.open(exports["png"]["file_path"]) as picture:
        assert picture.convert("RGB").getcolors() == [(320 * 180, (77, 77, 77))]


@pytest.mark.parametrize("base", ["missing.png", "broken.png", "text.png"])
async def test_a_base_that_cannot_be_used_leaves_the_picture_alone(
    service: ImageExportService, tmp_path: Path, base: str
) -> None:
    (tmp_path / "broken.png").write_bytes(png()[:60])
    (tmp_path / "text.png").write_text("no picture")
    exports = await service.process_and_export_image(png(), str(tmp_path / base))
    assert len(exports) == 3
    assert [warning.code for warning in exports.warnings] == ["composite_failed"]
    assert str(tmp_path) not in exports.warnings[0].detail


@pytest.mark.parametrize("base", ["pipe", "directory", "with\0nul", "half \ud83d", "a" * 300])
async def test_a_base_that_is_no_regular_file_is_not_waited_for(
    service: ImageExportService, tmp_path: Path, base: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    before = open_descriptors()
    exports = await service.process_and_export_image(png(), str(tmp_path / base))
    assert len(exports) == 3
    [warning] = exports.warnings
    assert (warning.code, warning.detail) == ("composite_failed", "the base picture cannot be opened")
    # What earlier tests left may be closed meanwhile.
    assert open_descriptors() <= before


@pytest.mark.parametrize("data", [b"", b"text", png()[:100], b"GIF89a" + bytes(50)])
async def test_data_that_is_no_picture_is_an_image_error_and_leaves_no_file(
    service: ImageExportService, tmp_path: Path, data: bytes
) -> None:
    with pytest.raises(ImageError):
        await service.process_and_export_image(data)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_a_format_that_fails_is_named_and_the_others_stay(service: ImageExportService) -> None:
    exports = await service.process_and_export_image(png((17_000, 4)))
    assert list(exports) == ["png", "jpeg"]
    assert [(warning.code, warning.format) for warning in exports.warnings] == [("encode_failed", "webp")]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (Path("picture.png"), "PosixPath"),
        (5, "int"),
        (base64.b64encode(png()).decode(), "str"),
        (None, "NoneType"),
        (io.BytesIO(png()), "BytesIO"),
        ([1, 2, 3], "list"),
    ],
)
async def test_a_picture_that_is_no_bytes_is_a_type_error_that_says_what_is_wanted(
    service: ImageExportService, data: Any, kind: str
) -> None:
    with pytest.raises(TypeError, match=rf"bytes, bytearray or memoryview\), not {kind}: read a file first"):
        await service.process_and_export_image(data)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_any_kind_of_bytes_is_a_picture(service: ImageExportService, kind: Callable[[bytes], Any]) -> None:
    assert len(await service.process_and_export_image(kind(png()))) == 3


async def test_a_base_may_be_a_path_object(service: ImageExportService, tmp_path: Path) -> None:
    base = tmp_path / "base.png"
    base.write_bytes(png(colour="white"))
    exports = await service.process_and_export_image(png(colour="black"), base)
    assert exports.warnings == []


@pytest.mark.parametrize(
    "argument",
    [{"base_image_path": png()}, {"base_image_path": 7}, {"normalize_dimensions": "1280x720"},
     {"normalize_dimensions": 1280}, {"metadata": "id"}, {"metadata": [("id", 7)]}, {"metadata": 0},
     {"formats": 5}, {"formats": {"png"}}, {"provenance": None}, {"provenance": True}, {"focus": 0.5}, {"focus": {}},
     {"max_bytes": "9"}, {"max_bytes": 9.0}, {"max_bytes": [("png", 9)]}, {"allow_resize": None},
     {"allow_resize": "true"}, {"allow_resize": 1}],
)  # fmt: skip
async def test_arguments_of_another_kind_are_type_errors_before_any_work(
    service: ImageExportService, tmp_path: Path, argument: dict[str, Any]
) -> None:
    [name] = argument
    with pytest.raises(TypeError, match=f"^{name} must be "):
        await service.process_and_export_image(png(), **argument)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("dimensions", [(0, 10), (10, 8193), (-1, 5), (1.5, 2), (True, 2), ("3", 4), (5,), (1, 2, 3)])
async def test_impossible_dimensions_are_a_value_error(
    service: ImageExportService, dimensions: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match="1 to 8192"):
        await service.process_and_export_image(png(), normalize_dimensions=dimensions)


@pytest.mark.parametrize(
    ("argument", "rule"),
    [
        *(({"formats": value}, "one or more of png, jpeg, webp, avif and gif, not") for value in (
            [], (), "png", "", b"png", ["bmp"], ["png", "bmp"], [None], ["png,webp"],
        )),
        *(({"provenance": value}, "'keep' or 'generated'") for value in ("Keep", "", "none")),
        *(({"focus": value}, "two numbers from 0 to 1 with at most 4 decimals") for value in (
            "0.5,0.5", "Auto", "", (), (0.5,), (0.5, 0.5, 0.5), (1.1, 0), (-0.1, 0), (0.12345, 0), (1 / 3, 0),
            (True, 0), ("0.5", "0.5"), (float("nan"), 0), (0, float("inf")), (None, None),
        )),
        *(({"max_bytes": value}, "whole numbers from 1 to 1000000000, not") for value in (
            0, -1, 1_000_000_001, True, {"png": 0}, {"png": "9"}, {"png": 9.0}, {"png": None}, {"png": True},
        )),
        *(({"max_bytes": value}, "^max_bytes: .* is none of the requested formats, png, jpeg and webp") for value in (
            {"avif": 9}, {"png": 9, "gif": 9}, {None: 9}, {"": 9},
        )),
        ({"max_bytes": {"jpg": 9, "jpeg": 9}}, "^max_bytes: jpeg comes twice"),
        ({"max_bytes": {"png": 9}, "formats": ["webp"]}, "^max_bytes: 'png' is none of the requested formats, webp"),
    ],
)  # fmt: skip
async def test_a_value_that_a_field_would_not_take_is_a_value_error(
    service: ImageExportService, tmp_path: Path, argument: dict[str, Any], rule: str
) -> None:
    with pytest.raises(ValueError, match=rule):
        await service.process_and_export_image(png(), **argument)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("formats", "made"),
    [(["avif"], ["avif"]), (("webp", " JPG ", "jpeg"), ["jpeg", "webp"]), (None, ["png", "jpeg", "webp"])],
)
async def test_the_formats_are_those_that_are_asked_for(
    service: ImageExportService, formats: Sequence[str] | None, made: list[str]
) -> None:
    assert list(await service.process_and_export_image(png((16, 9)), formats=formats)) == made


def planned(service: ImageExportService, monkeypatch: pytest.MonkeyPatch) -> list[ExportPlan]:
    """The plans of all jobs from now on."""
    plans: list[ExportPlan] = []
    run = service.pool.run

    async def recording(job: Job, *args: Any) -> Outcome:
        if isinstance(job, ExportJob):
            plans.append(job.plan)
        return await run(job, *args)

    monkeypatch.setattr(service.pool, "run", recording)
    return plans


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        ({"focus": "auto"}, {"focus": "auto"}),
        ({"focus": (0, 1)}, {"focus": (0, 10_000)}),
        ({"focus": [0.3, 0.0001]}, {"focus": (3_000, 1)}),
        ({"provenance": "generated"}, {"provenance": "generated"}),
        ({"max_bytes": 200_000}, {"budgets": Budgets(200_000)}),
        ({"max_bytes": {"JPG": 9_000, "png": 8_000}, "allow_resize": True},
         {"budgets": Budgets(each=(("png", 8_000), ("jpeg", 9_000)), may_resize=True)}),
        ({"max_bytes": {}}, {}),
    ],
)  # fmt: skip
async def test_the_arguments_are_the_plan_of_the_export(
    service: ImageExportService, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], changes: dict[str, Any]
) -> None:
    plans = planned(service, monkeypatch)
    await service.process_and_export_image(png(), **arguments)
    assert plans == [replace(ExportPlan(), **changes)]


async def test_without_any_export_within_its_budget_there_is_an_error(
    service: ImageExportService, tmp_path: Path
) -> None:
    with pytest.raises(NoExport, match="the PNG takes at least"):
        await service.process_and_export_image(png(), max_bytes=1)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    exports = await service.process_and_export_image(png(), max_bytes={"png": 1})
    assert list(exports) == ["jpeg", "webp"]
    assert [warning.code for warning in exports.warnings] == ["over_budget"]


async def test_a_full_disk_is_an_error_and_nothing_is_published(
    service: ImageExportService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(self: LocalStore, moves: object) -> None:
        raise StorageFull("no space is left in output/")

    monkeypatch.setattr(LocalStore, "publish", full)
    with pytest.raises(StorageFull):
        await service.process_and_export_image(png())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_cleanup_counts_what_it_removed(service: ImageExportService, tmp_path: Path) -> None:
    await service.process_and_export_image(png())
    assert service.cleanup_output_files() == 0
    old = time.time() - 8 * 86_400
    for path in (tmp_path / "output").iterdir():
        os.utime(path, (old, old))
    assert service.cleanup_output_files(days=9) == 0
    assert service.cleanup_temp_files() == 0
    assert service.cleanup_output_files() == 3
    with pytest.raises(ValueError, match="more than 0"):
        service.cleanup_temp_files(days=0)


def test_any_reference_of_the_largest_size_is_within_the_limit() -> None:
    size = (REFERENCE_LONGEST, REFERENCE_LONGEST)
    noise = Image.frombytes("RGB", size, os.urandom(3 * size[0] * size[1]))
    noise = noise.point([255 * (level > 127) for level in range(256)] * 3)
    assert len(encode(noise, REFERENCE_ENCODING, (255, 255, 255))) < MAX_REFERENCE_BYTES


async def test_a_picture_that_cannot_be_read_is_not_called_undecodable(service: ImageExportService) -> None:
    with pytest.raises(StorageUnavailable, match="cannot be read"):
        await service.inspect(Source(str(service.settings.area("uploads") / "vanished.png"), "0" * 64, 0, None))


async def test_a_start_that_is_cancelled_leaves_no_worker_behind(tmp_path: Path) -> None:
    service = ImageExportService(load_settings(storage_dir=tmp_path, export_workers=2))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), service:
            pass
    assert [thread for thread in threading.enumerate() if thread.name == "worker-start"] == []
    assert service.pool.pids == []
