"""The base of an order: decoded once for all variations, and its temporary files are removed."""

import asyncio
import hashlib
from collections import Counter
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.bases import PREPARED_BYTES, Needs, Source, source_of
from service.errors import ImageError, UnsupportedImage
from service.exports import ImageExportService
from service.imaging.containers.container import Container
from service.imaging.decode import decode
from service.imaging.formats import JpegEncoding
from service.imaging.frame import Frame, Size
from service.imaging.plan import ExportPlan, Job, Outcome
from service.orders import Event, Order, Sent, Variation
from service.server.keys import EXPORTS, THUMBNAILS
from service.workers import worker
from tests.conftest import Serve
from tests.helpers import SCRIPT, QuickEmulator, Running, assert_problem, decoded, picture_bytes, until, upload
from tests.test_endpoints_with_exports import large_png

on_one_loop = pytest.mark.asyncio(loop_scope="session")

SMALL = ExportPlan(Frame(16, 9))
ONE = (JpegEncoding(),)
TINY = (("width", "16"), ("height", "9"), ("formats", "jpeg"))
BASE_SIZE = (640, 360)


@pytest.fixture
def base(tmp_path: Path) -> Source:
    (tmp_path / "base.jpg").write_bytes(picture_bytes(BASE_SIZE, "blue", "JPEG"))
    return source_of(str(tmp_path / "base.jpg"))


class Decodes:
    """Runs jobs in this process, and counts decodes and reads of each file."""

    def __init__(self, exports: ImageExportService, patch: pytest.MonkeyPatch) -> None:
        self.sizes: Counter[Size] = Counter()
        self.reads: Counter[str] = Counter()
        self._read = worker._read_container
        patch.setattr(worker, "_read_container", self._count_read)
        for module in ("service.workers.worker", "service.imaging.pipeline"):
            patch.setattr(f"{module}.decode", self._count_decode)
        patch.setattr(exports.pool, "run", self._run)

    async def _run(self, job: Job, *_: Any) -> Outcome:
        return await asyncio.to_thread(worker.run, job)

    def _count_read(self, path: str) -> Container:
        self.reads[path] += 1
        return self._read(path)

    def _count_decode(self, container: Container) -> Any:
        self.sizes[container.size] += 1
        return decode(container)


@pytest.fixture
def decodes(service: Running, monkeypatch: pytest.MonkeyPatch) -> Decodes:
    return Decodes(service.app[EXPORTS], monkeypatch)


async def events_of(service: Running, order: Order) -> list[Event]:
    return [event async for event in service.app[THUMBNAILS].generate(order)]


@on_one_loop
async def test_a_base_is_decoded_and_hashed_once_for_four_variations(
    service: Running, decodes: Decodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    digest = hashlib.file_digest

    def counted(file: Any, *args: Any) -> Any:
        hashed.append(file.name)
        return digest(file, *args)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    answer = await service.thumbnails(upload(picture_bytes(BASE_SIZE, "blue", "JPEG")), ("count", "4"))
    variations = answer.json["variations"]
    assert [variation["metadata"]["composited"] for variation in variations] == [True] * 4
    assert [variation["warnings"] for variation in variations] == [[]] * 4
    assert decodes.sizes == {BASE_SIZE: 1, (1376, 768): 4}
    [reads] = [reads for path, reads in decodes.reads.items() if "/uploads/" in path]
    assert (reads, len(hashed)) == (1, 1)


@on_one_loop
@pytest.mark.parametrize("fields", [(), TINY, (("width", "100"),), (("aspect_ratio", "1:1"), ("height", "50"))])
async def test_the_base_is_prepared_in_the_size_of_the_exports(
    service: Running, decodes: Decodes, fields: tuple[tuple[str, str], ...]
) -> None:
    await service.thumbnails(upload(picture_bytes(BASE_SIZE, "blue", "JPEG")), *fields)
    assert decodes.sizes[BASE_SIZE] == 1


@on_one_loop
async def test_a_picture_of_an_unexpected_size_is_composited_too(
    service: Running, decodes: Decodes, base: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Order, "needs", lambda self, plan: Needs(plan, (7, 7), 1, reference=False))
    [variation] = [event for event in await events_of(service, Order(SCRIPT, base)) if isinstance(event, Variation)]
    assert variation.exported.composited
    assert decodes.sizes[BASE_SIZE] == 2


@on_one_loop
async def test_a_base_too_large_to_send_is_decoded_once_too(service: Running, decodes: Decodes) -> None:
    data = await asyncio.to_thread(large_png)
    size = (await asyncio.to_thread(decoded, data)).size
    answer = await service.thumbnails(upload(data), ("count", "2"), *TINY)
    assert len(answer.json["variations"]) == 2
    assert decodes.sizes[size] == 1
    assert service.emulator.received[-1].references[0].mime_type == "image/jpeg"
    assert service.area("temp") == []


@on_one_loop
async def test_an_upload_under_another_is_decoded_once(service: Running, decodes: Decodes) -> None:
    answer = await service.exports(
        upload(picture_bytes((320, 180))), upload(picture_bytes(BASE_SIZE, "blue", "JPEG"), "base"), *TINY
    )
    assert answer.json["metadata"]["composited"] is True
    assert decodes.sizes == {(320, 180): 1, BASE_SIZE: 1}


@on_one_loop
async def test_an_order_of_python_checks_its_base_before_any_call(service: Running, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(picture_bytes(BASE_SIZE, "blue", "JPEG")[:-500])
    with service.nothing_spent_or_left(), pytest.raises(ImageError):
        await events_of(service, Order(SCRIPT, source_of(str(broken)), plan=SMALL))


# Temporary files


@on_one_loop
@pytest.mark.parametrize("fault", [None, "blocked_safety", "not_a_picture", "truncated_picture", "unavailable"])
async def test_the_files_of_the_base_are_removed(serve: Serve, base: Source, fault: str | None) -> None:
    service = await serve(QuickEmulator(then=fault), gemini_retry_seconds=0)
    await events_of(service, Order(SCRIPT, base, count=2, plan=SMALL, encodings=ONE))
    await service.thumbnails(upload(picture_bytes()), *TINY)
    await service.thumbnails(upload(picture_bytes()[:-30]), *TINY)
    await until(lambda: not service.area("temp"))


@on_one_loop
async def test_the_base_stays_for_variations_whose_client_disconnected(serve: Serve, base: Source) -> None:
    service = await serve(QuickEmulator(delay_seconds=0.2))
    done = asyncio.Event()
    thumbnails = service.app[THUMBNAILS]
    order = Order(SCRIPT, base, count=2, plan=SMALL, encodings=ONE)
    async with (
        thumbnails.checked(order) as checked,
        aclosing(thumbnails.generate(order, done.set, checked)) as events,
    ):
        sent = 0
        async for event in events:
            sent += isinstance(event, Sent)
            if sent == 2:
                break
    assert len(service.area("temp")) >= 1
    await asyncio.wait_for(done.wait(), 20)
    assert len(service.area("output")) == 2
    assert service.area("temp") == []


@on_one_loop
async def test_the_files_of_the_base_go_with_cancelled_work(serve: Serve, base: Source) -> None:
    emulator = QuickEmulator(delay_seconds=60)
    service = await serve(emulator)
    reading = asyncio.create_task(events_of(service, Order(SCRIPT, base, plan=SMALL)))
    await until(lambda: emulator.in_flight == 1)
    await service.app[THUMBNAILS].close()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert service.area("temp") == []


# Too costly


@on_one_loop
async def test_an_upload_that_fails_its_first_check_is_refused_before_any_call(serve: Serve) -> None:
    service = await serve(export_timeout_seconds=0.000001)
    with service.nothing_spent_or_left():
        assert_problem(await service.thumbnails(upload(picture_bytes()), *TINY), 422, "too_costly")
        pair = (upload(picture_bytes()), upload(picture_bytes(), "base"))
        assert_problem(await service.exports(*pair, *TINY), 422, "too_costly")


@on_one_loop
@pytest.mark.parametrize("data", [picture_bytes(kind="JPEG")[:-300], b"\x89PNG\r\n\x1a\n" + bytes(40)])
async def test_a_bad_base_under_an_upload_is_refused(service: Running, data: bytes) -> None:
    with service.nothing_spent_or_left():
        pair = (upload(picture_bytes()), upload(data, "base"))
        assert_problem(await service.exports(*pair, *TINY), 422, "undecodable")


# The parts


@pytest.mark.parametrize(
    ("order", "size"),
    [
        (Order(SCRIPT), (1280, 720)),
        (Order(SCRIPT, aspect_ratio="1:1"), (1024, 1024)),
        (Order(SCRIPT, image_size="4K"), (5120, 2880)),
        (Order(SCRIPT, aspect_ratio="7:5"), None),
        (Order(SCRIPT, aspect_ratio="7:5", plan=ExportPlan(Frame(30, 20))), (30, 20)),
        (Order(SCRIPT, plan=ExportPlan(Frame(width=10, ratio=(1, 9999)))), None),
    ],
)
def test_an_order_expects_the_size_of_its_exports(order: Order, size: Size | None) -> None:
    assert order.needs(order.effective_plan((255, 255, 255))).size == size


def test_pixels_that_could_fill_the_disk_are_not_kept() -> None:
    many = Needs(SMALL, (4096, 4096), 4, reference=False)
    assert PREPARED_BYTES < 3 * 4096 * 4096
    assert many.prepared_size() == (4096, 4096)
    assert replace(many, variations=1).prepared_size() is None
    assert replace(many, size=None).prepared_size() is None


def test_a_source_describes_its_file(tmp_path: Path) -> None:
    data = picture_bytes(kind="WEBP")
    (tmp_path / "lies.png").write_bytes(data)
    source = source_of(str(tmp_path / "lies.png"))
    assert source == Source(str(tmp_path / "lies.png"), hashlib.sha256(data).hexdigest(), len(data), "webp")
    (tmp_path / "text").write_bytes(b"text")
    assert source_of(str(tmp_path / "text")).format is None
    with pytest.raises(UnsupportedImage):
        source_of(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        source_of(str(tmp_path / "absent"))
