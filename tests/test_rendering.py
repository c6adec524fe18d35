"""Jobs with real workers: bases that fail, the memory of jobs that kill workers, and priorities."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from service.bases import Base, Needs, Source, source_of
from service.errors import ImageError, StorageFull, TooCostly
from service.exports import ImageExportService
from service.imaging.formats import JpegEncoding
from service.imaging.frame import Frame
from service.imaging.plan import CheckJob, ExportJob, ExportPlan, InspectJob, Job, Outcome, Priority
from service.publishing import ExportSet
from service.settings import load_settings
from service.workers.queue import Place
from service.workers.strikes import POISON_DEATHS
from tests.animations import animation
from tests.helpers import picture_bytes, until

SECONDS = 0.5
SMALL = ExportPlan(Frame(16, 9))
ONE = (JpegEncoding(),)

MakeBase = Callable[[], Base]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[ImageExportService]:
    settings = load_settings(storage_dir=tmp_path / "storage", export_workers=1, export_timeout_seconds=SECONDS)
    async with ImageExportService(settings) as service:
        yield service


@pytest.fixture
def picture(tmp_path: Path) -> Source:
    (tmp_path / "picture.png").write_bytes(picture_bytes())
    return source_of(str(tmp_path / "picture.png"))


@pytest.fixture
def bad_base(tmp_path: Path) -> Base:
    """An accepted base that no worker finishes reading: a pipe without a writer."""
    path = tmp_path / "base"
    path.write_bytes(picture_bytes(kind="JPEG"))
    source = source_of(str(path))
    path.unlink()
    os.mkfifo(path)
    return Base(source)


def _kill_when_reading(pid: int, path: str) -> None:
    with open(path, "wb"):
        os.kill(pid, signal.SIGKILL)


async def kill_readers(service: ImageExportService, path: str, times: int = POISON_DEATHS) -> None:
    """Kill this many workers, one after the other, while they read the pipe."""
    seen: set[int] = set()

    def is_replaced() -> bool:
        return service.pool.busy == 1 and bool(set(service.pool.pids) - seen)

    for _ in range(times):
        await until(is_replaced)
        seen |= set(service.pool.pids)
        await asyncio.to_thread(_kill_when_reading, service.pool.pids[0], path)


def assert_alone(exported: ExportSet) -> None:
    assert not exported.composited
    [warning] = exported.warnings
    assert (warning.code, warning.format) == ("composite_failed", None)
    assert len(exported.exports) == 1


async def test_a_base_that_exceeds_the_time_of_a_worker_is_left_out(
    service: ImageExportService, picture: Source, bad_base: Base
) -> None:
    exported = await service.export(picture, bad_base, SMALL, ONE)
    assert_alone(exported)
    assert f"{4 * SECONDS:g} seconds by the clock" in exported.warnings[0].detail


async def test_a_base_that_kills_three_workers_is_left_out_and_the_picture_is_not_poisoned(
    service: ImageExportService, picture: Source, bad_base: Base
) -> None:
    job = asyncio.create_task(service.export(picture, bad_base, SMALL, ONE))
    await service.pool.start()
    await kill_readers(service, bad_base.source.path)
    assert_alone(await job)
    for plan, base in ((SMALL, None), (ExportPlan(Frame(8, 8)), None)):
        assert (await service.export(picture, base, plan, ONE)).warnings == ()


async def test_picture_base_and_plan_are_remembered_together(
    service: ImageExportService, picture: Source, bad_base: Base, tmp_path: Path
) -> None:
    job = asyncio.create_task(service.export(picture, bad_base, SMALL, ONE))
    await service.pool.start()
    await kill_readers(service, bad_base.source.path)
    await job
    # The base can be read by now, so only the combination is remembered.
    path = Path(bad_base.source.path)
    path.unlink()
    path.write_bytes(picture_bytes(kind="JPEG"))
    assert_alone(await service.export(picture, Base(bad_base.source), SMALL, ONE))
    assert (await service.export(picture, Base(bad_base.source), ExportPlan(Frame(8, 8)), ONE)).composited
    (tmp_path / "other.png").write_bytes(picture_bytes(colour="blue"))
    other = source_of(str(tmp_path / "other.png"))
    assert (await service.export(other, Base(bad_base.source), SMALL, ONE)).composited


async def test_further_exports_do_not_try_a_failed_base(
    service: ImageExportService, picture: Source, bad_base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_alone(await service.export(picture, bad_base, SMALL, ONE))
    jobs = recorded(service, monkeypatch)
    assert_alone(await service.export(picture, bad_base, ExportPlan(Frame(8, 8)), ONE))
    assert len(jobs) == 1


async def test_a_picture_at_fault_is_refused_and_its_base_is_not_blamed(
    service: ImageExportService, picture: Source, tmp_path: Path
) -> None:
    (tmp_path / "base.png").write_bytes(picture_bytes())
    base = Base(source_of(str(tmp_path / "base.png")))
    Path(picture.path).unlink()
    os.mkfifo(picture.path)
    with pytest.raises(TooCostly):
        await service.export(picture, base, SMALL, ONE)
    assert base.fault is None


async def test_a_required_base_that_exceeds_the_time_of_a_worker_is_refused(
    service: ImageExportService, picture: Source, bad_base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = recorded(service, monkeypatch)
    bad_base.required = True
    with pytest.raises(TooCostly):
        await service.export(picture, bad_base, SMALL, ONE)
    assert len(jobs) == 1


async def test_a_base_by_its_path_is_left_out_too(
    service: ImageExportService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base.png"
    base.write_bytes(picture_bytes((64, 48)))
    run = service.pool.run

    async def stopped(job: Job, *args: Any) -> Outcome:
        """Jobs with a base hang."""
        if getattr(job, "base", None):
            os.kill(service.pool.pids[0], signal.SIGSTOP)
        return await run(job, *args)

    monkeypatch.setattr(service.pool, "run", stopped)
    exports = await service.process_and_export_image(picture_bytes(), str(base))
    assert list(exports) == ["png", "jpeg", "webp"]
    assert [warning.code for warning in exports.warnings] == ["composite_failed"]


def recorded(service: ImageExportService, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Job, str, Place]]:
    """The jobs that are submitted to the pool from now on."""
    run, jobs = service.pool.run, list[tuple[Job, str, Place]]()

    def record(job: Job, digest: str, place: Place) -> Awaitable[Outcome]:
        jobs.append((job, digest, place))
        return run(job, digest, place)

    monkeypatch.setattr(service.pool, "run", record)
    return jobs


async def test_the_check_of_an_upload_has_priority_and_exports_have_a_cost(
    service: ImageExportService, picture: Source, monkeypatch: pytest.MonkeyPatch
) -> None:

    jobs = recorded(service, monkeypatch)
    async with (await service.check(picture, Needs(SMALL, (16, 9), 1, reference=True))).used() as base:
        await service.export(picture, base, SMALL, ONE, Priority.PAID)
    await service.export(picture, None, ExportPlan(Frame(1920, 1080)), ONE)
    await service.inspect(picture)
    kinds = [(type(job), place.priority) for job, _, place in jobs]
    assert kinds[0] == (CheckJob, Priority.PAID)
    assert [priority for _, priority in kinds] == [Priority.PAID, Priority.PAID, Priority.OTHER, Priority.OTHER]
    assert kinds[3][0] is InspectJob
    costs = [place.cost for _, _, place in jobs]
    assert costs[2] > 3 * costs[1]


async def test_an_animation_of_many_pixels_is_a_large_job(
    service: ImageExportService, picture: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.imaging.cost.LARGE_PIXELS", 3 * 64 * 36 - 1)
    (tmp_path / "dance.gif").write_bytes(animation("GIF", size=(64, 36)))
    dance, jobs = source_of(str(tmp_path / "dance.gif")), recorded(service, monkeypatch)
    first, keep = ExportPlan(Frame(8, 8)), ExportPlan(Frame(8, 8), animate="keep")
    for source, plan in ((dance, keep), (dance, first), (picture, keep)):
        await service.export(source, None, plan, ONE)
    # A worker counts the frames first.
    assert [(type(job), place.large) for job, _, place in jobs] == [
        (InspectJob, False),
        (ExportJob, True),
        (ExportJob, False),
        (InspectJob, False),
        (ExportJob, False),
    ]
    costs = [place.cost for _, _, place in jobs]
    assert costs[1] > costs[2]


async def test_jobs_of_every_frame_and_of_the_first_are_different_inputs(
    service: ImageExportService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dance.gif").write_bytes(animation("GIF", size=(64, 36)))
    dance, jobs = source_of(str(tmp_path / "dance.gif")), recorded(service, monkeypatch)
    await service.export(dance, None, ExportPlan(Frame(8, 8)), ONE)
    await service.export(dance, None, ExportPlan(Frame(8, 8), animate="keep"), ONE)
    assert len({digest for job, digest, _ in jobs if isinstance(job, ExportJob)}) == 2


async def test_a_file_without_a_size_counts_as_the_largest(
    service: ImageExportService, picture: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    (tmp_path / "odd.jpg").write_bytes(b"\xff\xd8" + b"\xff\xe0\0\2" * 2_000)
    jobs = recorded(service, monkeypatch)
    with pytest.raises(ImageError):
        await service.export(source_of(str(tmp_path / "odd.jpg")), None, SMALL, ONE)
    await service.export(picture, None, SMALL, ONE)
    odd, usual = (place.cost for _, _, place in jobs)
    assert odd > 50 * usual


async def test_the_files_of_a_check_go_with_its_last_user(service: ImageExportService, picture: Source) -> None:

    temp = service.settings.area("temp")
    shared = await service.check(picture, Needs(SMALL, (16, 9), 1, reference=True))
    async with shared.used() as base:
        async with shared.used():
            assert base.prepared
            assert [str(path) for path in temp.iterdir()] == [base.prepared.path]
        assert list(temp.iterdir())
    assert not list(temp.iterdir())


async def test_a_check_works_without_space_for_renditions(
    service: ImageExportService, picture: Source, monkeypatch: pytest.MonkeyPatch
) -> None:

    async def full(*_: object) -> None:
        raise StorageFull("no space is left in temp/")

    with monkeypatch.context() as patch:
        patch.setattr(service.store, "reserve", full)
        shared = await service.check(picture, Needs(SMALL, (16, 9), 1, reference=True))
    async with shared.used() as base:
        assert base.prepared is None
        assert (await service.export(picture, base, SMALL, ONE)).composited
