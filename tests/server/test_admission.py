"""Admission control: places, disk reservations, and refusals that cost nothing."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.server.admission import VARIATION_BYTES, Admission
from service.server.keys import ADMISSION, EXPORTS
from service.server.run import _drain, _StopSignals
from service.settings import MIB
from service.store.layout import AREAS
from service.store.local import LocalStore
from tests.conftest import Serve
from tests.helpers import QuickEmulator, Running, assert_problem, picture_bytes, until, upload

pytestmark = pytest.mark.asyncio(loop_scope="session")

TINY = (("formats", "jpeg"), ("width", "16"))


class Gate:
    """Holds every call to Gemini until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.emulator = GatedEmulator(self)


class GatedEmulator(QuickEmulator):
    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate

    async def _wait(self) -> None:
        await self.gate.open.wait()


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The free bytes of the disk, as the service measures them."""
    free = [10_000 * MIB]

    monkeypatch.setattr(LocalStore, "_free_bytes", lambda store: free[0])
    return iter([free])


async def test_a_full_service_is_503_with_retry_after(serve: Serve) -> None:
    gate = Gate()
    service = await serve(gate.emulator, max_requests=1)
    first = asyncio.create_task(service.thumbnails(*TINY))
    await until(lambda: gate.emulator.requests == 1)
    for path in ("/api/thumbnails", "/api/exports"):
        answer = await service.post(path, ("script", "x"), upload(picture_bytes()))
        body = assert_problem(answer, 503, "busy")
        assert body["retryable"] is True
        assert body["billed"] is False
        assert int(answer.headers["Retry-After"]) > 0
    assert gate.emulator.requests == 1
    assert (await service.get("/healthz")).status == 200
    gate.open.set()
    answer = await first
    assert answer.status == 200
    url = answer.json["variations"][0]["exports"]["jpeg"]["url"]
    assert (await service.get(url)).status == 200
    assert (await service.thumbnails(*TINY)).status == 200


async def test_a_refusal_comes_before_the_body(serve: Serve) -> None:
    gate = Gate()
    service = await serve(gate.emulator, max_requests=1)
    first = asyncio.create_task(service.thumbnails(*TINY))
    await until(lambda: gate.emulator.requests == 1)
    request = b"POST /api/exports HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    assert_problem(await service.raw(request), 503, "busy")
    gate.open.set()
    await first


async def test_pending_exports_bound_exports_only(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    service = await serve(max_pending_exports=1, export_workers=1)
    admission, hold = service.app[ADMISSION], asyncio.Event()
    inspect = service.app[EXPORTS].export

    async def slow(*args: Any, **options: Any) -> object:
        await hold.wait()
        return await inspect(*args, **options)

    monkeypatch.setattr(service.app[EXPORTS], "export", slow)
    inside = [asyncio.create_task(service.exports(upload(picture_bytes()), *TINY)) for _ in range(2)]
    await until(lambda: admission.inside["exports"] == 2)
    answer = await service.exports(upload(picture_bytes()), *TINY)
    assert_problem(answer, 503, "busy", "too many export requests")
    assert answer.headers["Retry-After"]
    paid = asyncio.create_task(service.thumbnails(*TINY))
    await until(lambda: service.emulator.requests == 1)
    hold.set()
    assert [answer.status for answer in await asyncio.gather(*inside, paid)] == [200, 200, 200]
    assert (await service.exports(upload(picture_bytes()), *TINY)).status == 200


async def test_a_paid_picture_waits_however_long_the_queue(serve: Serve) -> None:
    service = await serve(max_pending_exports=1, export_workers=1, max_variations=12)
    answer = await service.thumbnails(("count", "12"), *TINY)
    assert len(answer.json["variations"]) == 12


async def test_downloads_have_a_limit_of_their_own(serve: Serve) -> None:
    service = await serve(max_downloads=1, max_requests=1)
    admission = service.app[ADMISSION]
    ticket = await admission.enter("download")
    answer = await service.get(f"/static/output/export_{'0' * 32}.png")
    assert_problem(answer, 503, "busy")
    assert answer.headers["Retry-After"]
    assert (await service.thumbnails(*TINY)).status == 200
    ticket.leave()
    assert_problem(await service.get(f"/static/output/export_{'0' * 32}.png"), 404, "not_found")


async def test_a_full_disk_is_507_before_anything_is_read(service: Running, space: Iterator[list[int]]) -> None:
    free = next(space)
    free[0] = VARIATION_BYTES - 1
    with service.nothing_spent_or_left():
        for path in ("/api/thumbnails", "/api/exports"):
            answer = await service.post(path, ("script", "x"))
            body = assert_problem(answer, 507, "storage_full", "MiB")
            assert body["billed"] is False
    assert_problem(await service.get("/readyz"), 503, "not_ready", "storage lacks 1 MiB")
    free[0] = VARIATION_BYTES
    assert (await service.thumbnails(*TINY)).status == 200


async def test_each_variation_needs_its_64_mib(service: Running, space: Iterator[list[int]]) -> None:
    next(space)[0] = 3 * VARIATION_BYTES
    assert (await service.thumbnails(("count", "3"), *TINY)).status == 200
    with service.nothing_spent_or_left():
        answer = await service.thumbnails(("count", "4"), upload(picture_bytes()), *TINY)
    assert_problem(answer, 507, "storage_full", "64 MiB")


async def test_reservations_of_others_count(serve: Serve, space: Iterator[list[int]]) -> None:
    gate = Gate()
    service = await serve(gate.emulator)
    next(space)[0] = 4 * VARIATION_BYTES
    first = asyncio.create_task(service.thumbnails(("count", "3"), *TINY))
    await until(lambda: gate.emulator.requests == 3)
    assert_problem(await service.thumbnails(("count", "2"), *TINY), 507, "storage_full")
    second = asyncio.create_task(service.thumbnails(*TINY))
    await until(lambda: gate.emulator.requests == 4)
    assert_problem(await service.exports(upload(picture_bytes())), 507, "storage_full")
    gate.open.set()
    assert [(await each).status for each in (first, second)] == [200, 200]
    await until(lambda: service.app[ADMISSION].reserved == 0)


async def test_many_at_once_never_reserve_too_much(service: Running, space: Iterator[list[int]]) -> None:
    next(space)[0] = 5 * VARIATION_BYTES
    admission = service.app[ADMISSION]
    entries = await asyncio.gather(*(admission.enter("thumbnails") for _ in range(20)), return_exceptions=True)
    tickets = [entry for entry in entries if not isinstance(entry, BaseException)]
    assert len(tickets) == 5
    assert admission.reserved == 5 * VARIATION_BYTES
    for ticket in tickets:
        ticket.leave()
    assert (admission.reserved, admission.inside["thumbnails"]) == (0, 0)


@pytest.mark.parametrize("steps", range(8))
async def test_an_entry_that_is_cancelled_costs_nothing(service: Running, steps: int) -> None:
    admission = service.app[ADMISSION]

    async def enter() -> None:
        with await admission.enter("thumbnails", 2):
            await asyncio.sleep(60)

    task = asyncio.create_task(enter())
    for _ in range(steps):
        await asyncio.sleep(0.0005)
    task.cancel()
    await asyncio.wait([task])
    assert (admission.reserved, admission.inside["thumbnails"]) == (0, 0)


async def test_concurrent_requests_share_a_probe_of_the_disk(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    probes, probe = [], LocalStore.probe

    async def counted(store: LocalStore) -> int:
        probes.append(store)
        return await probe(store)

    monkeypatch.setattr(LocalStore, "probe", counted)
    await asyncio.gather(*(service.app[ADMISSION].check("exports") for _ in range(20)))
    assert len(probes) == 1


@contextmanager
def replaced_by_a_file(folder: Path) -> Iterator[None]:
    """Replace the directory by a file, so that not even root can write into it."""
    aside = folder.with_name(f"{folder.name}-aside")
    folder.rename(aside)
    folder.write_bytes(b"")
    try:
        yield
    finally:
        folder.unlink()
        aside.rename(folder)


@pytest.mark.parametrize("area", AREAS)
async def test_storage_that_cannot_be_written_is_503_and_names_the_area(service: Running, area: str) -> None:
    requests = service.emulator.requests
    with replaced_by_a_file(service.settings.storage_dir / area):
        answers = [await service.thumbnails(), await service.exports(upload(picture_bytes()))]
        ready = await service.get("/readyz")
    for answer in answers:
        body = assert_problem(answer, 503, "storage_unavailable", f"{area}/")
        assert body["retryable"] is True
        assert str(service.settings.storage_dir) not in answer.body.decode()
    assert_problem(ready, 503, "not_ready", f"{area}/")
    assert service.emulator.requests == requests
    assert (await service.thumbnails(*TINY)).status == 200


async def test_a_directory_of_another_name_is_named_by_its_area(serve: Serve, tmp_path: Path) -> None:
    service = await serve(output_dir=tmp_path / "a-private-name")
    with replaced_by_a_file(tmp_path / "a-private-name"):
        answer = await service.thumbnails()
    assert_problem(answer, 503, "storage_unavailable", "output/")
    assert "private" not in answer.body.decode()


async def test_a_service_that_shuts_down_admits_no_request(serve: Serve) -> None:
    gate = Gate()
    service = await serve(gate.emulator)
    admission = service.app[ADMISSION]
    inside = asyncio.create_task(service.thumbnails(*TINY))
    await until(lambda: gate.emulator.requests == 1)
    admission.draining = True
    emptied = asyncio.create_task(admission.emptied())
    for answer in (await service.thumbnails(), await service.exports(upload(picture_bytes()))):
        assert_problem(answer, 503, "draining")
        assert answer.headers["Retry-After"]
    assert_problem(await service.get("/readyz"), 503, "not_ready", "draining")
    assert (await service.get("/healthz")).status == 200
    assert not emptied.done()
    gate.open.set()
    assert (await inside).status == 200
    await asyncio.wait_for(emptied, 20)


@pytest.mark.parametrize("fields", [[("script", "")], [("nonsense", "1")], [("count", "99")]])
async def test_a_refused_request_releases_its_place(service: Running, fields: list[tuple[str, str]]) -> None:
    admission: Admission = service.app[ADMISSION]
    for path in ("/api/thumbnails", "/api/exports"):
        assert (await service.post(path, *fields)).status == 422
    await until(lambda: not any(admission.inside.values()))
    assert admission.reserved == 0


async def test_the_probes_of_admission_control_leave_no_file(service: Running) -> None:
    with service.nothing_spent_or_left():
        await asyncio.gather(*(service.exports() for _ in range(10)))
    assert not [name for area in AREAS for name in os.listdir(service.settings.area(area)) if "probe" in name]


async def test_a_drain_waits_for_an_answer_that_is_still_being_sent(serve: Serve) -> None:
    service = await serve()
    admission = service.app[ADMISSION]
    with admission.answering():
        draining = asyncio.create_task(_drain(service.app, _StopSignals(), 60))
        await until(lambda: admission.draining)
        await asyncio.sleep(0.05)
        assert not draining.done()
    await draining
