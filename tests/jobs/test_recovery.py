"""Recovery at the start: every crash point of a call."""

import asyncio
import base64
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service.emulator.responders import PendingRequest, raw
from service.encodings import default_encodings
from service.errors import OutcomeUnknown, RawMissing
from service.imaging.formats import FORMATS, TABLE, JpegEncoding
from service.jobs import recovery
from service.jobs.job import GENERATIONS, ROUTE
from service.ledger.ledger import Ledger, ledger_access, open_ledger
from service.ledger.steps import CallId, Failure, NewRequest, Receipt
from service.orders import Order
from service.server.keys import ADMISSION, JOBS
from service.server.run import _drain, _StopSignals
from service.settings import Settings
from service.store.holds import lock_shared
from service.store.layout import export_key, export_stem, request_id
from service.stored import StoredBase, error_to_json, order_to_json
from tests.conftest import MakeSettings, Serve
from tests.handlers.test_events import events
from tests.handlers.test_idempotency import Gate
from tests.helpers import SCRIPT, QuickEmulator, Running, picture_bytes, until, until_async

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODEL = "gemini-nano-banana-2.1"
PICTURE = picture_bytes((1376, 768))


class Dead:
    """A process that wrote its requests into the ledger and ended."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.requests: list[NewRequest] = []

    def request(self, count: int = 1, base: StoredBase | None = None, **changes: Any) -> NewRequest:
        order = Order(SCRIPT, count=count, model=MODEL, encodings=(JpegEncoding(),))
        values: dict[str, Any] = {
            "id": request_id(), "principal": "-", "route": ROUTE, "fingerprint": "", "mode": "sync",
            "backend": "gemini", "spec": order_to_json(order, base), "upload": base.key if base else None,
            "model": MODEL, "image_size": "1K", "stems": [export_stem() for _ in range(count)],
            "list_price": 33_600_000,
        }  # fmt: skip
        self.requests.append(NewRequest(**values | changes))
        return self.requests[-1]

    @asynccontextmanager
    async def ledger(self) -> AsyncIterator[Ledger]:
        async with open_ledger(ledger_access(self.settings)) as ledger:
            for request in self.requests:
                await ledger.open(request)
            yield ledger

    def put(self, key: str, data: bytes = PICTURE) -> Path:
        return put(self.settings, key, data)


def put(settings: Settings, key: str, data: bytes) -> Path:
    """Write a file of the storage."""
    path = Path(settings.storage_dir, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def dead(make_settings: MakeSettings) -> Dead:
    return Dead(make_settings())


async def ended(service: Running, request: NewRequest) -> dict[str, Any]:
    """Its status, once recovery has done with it."""
    found: dict[str, Any] = {}

    async def over() -> bool:
        found.update((await service.get(f"/api/thumbnails/{request.id}")).json)
        return bool(found["state"] != "running")

    await until_async(over)
    return found


Prepare = Callable[[Dead, Ledger, CallId], Awaitable[None]]


async def nothing(dead: Dead, ledger: Ledger, call: CallId) -> None:
    """It died before the call."""


async def sending(dead: Dead, ledger: Ledger, call: CallId) -> None:
    await ledger.send(call)


async def drawn(dead: Dead, ledger: Ledger, call: CallId) -> None:
    await ledger.send(call)
    dead.put(f"generated/{call.request_id}_1.png")


async def in_temp(dead: Dead, ledger: Ledger, call: CallId) -> None:
    await ledger.send(call)
    dead.put(f"temp/{call.request_id}_1.part")


async def cut_in_temp(dead: Dead, ledger: Ledger, call: CallId) -> None:
    await ledger.send(call)
    dead.put(f"temp/{call.request_id}_1.part", PICTURE[: len(PICTURE) // 2])


async def spilled(dead: Dead, ledger: Ledger, call: CallId) -> None:
    await ledger.send(call)
    data = {"mimeType": "image/png", "data": base64.b64encode(PICTURE).decode()}
    usage = {"promptTokenCount": 12, "candidatesTokenCount": 1120}
    reply = {"candidates": [{"content": {"parts": [{"inlineData": data}]}}], "usageMetadata": usage}
    dead.put(f"temp/{call.request_id}_1.body", json.dumps(reply).encode())


async def cut_spilled(dead: Dead, ledger: Ledger, call: CallId) -> None:
    await ledger.send(call)
    dead.put(f"temp/{call.request_id}_1.body", b'{"candidates": [{"content": {"parts": [{"inlineData": {"data": "iVBO')


async def unread(dead: Dead, ledger: Ledger, call: CallId) -> None:
    await ledger.send(call)
    dead.put(f"generated/{call.request_id}_1.reply", b"{}")


async def received(dead: Dead, ledger: Ledger, call: CallId) -> None:
    await drawn(dead, ledger, call)
    key = f"generated/{call.request_id}_1.png"
    sha256 = hashlib.sha256(PICTURE).hexdigest()
    await ledger.receive(call, Receipt(key, sha256, len(PICTURE), '{"candidatesTokenCount": 1120}', 33_600_000, False))


async def half_published(dead: Dead, ledger: Ledger, call: CallId) -> None:
    await received(dead, ledger, call)
    dead.put(f"output/{dead.requests[0].stems[0]}.jpg", b"the name is whole, and will be overwritten")
    dead.put("temp/0123456789abcdef0123456789abcdef.part", b"what a worker was writing")


async def swept(dead: Dead, ledger: Ledger, call: CallId) -> None:
    await received(dead, ledger, call)
    Path(dead.settings.storage_dir, f"generated/{call.request_id}_1.png").unlink()


CASES: dict[str, tuple[Prepare, str, bool | None, float | None, bool]] = {
    # prepared, state of the call, billed, its cost, whether that is an estimate
    "planned": (nothing, "cancelled", False, 0.0, False),
    "sending": (sending, "unknown", None, None, False),
    "raw without a row": (drawn, "exported", True, 0.0336, True),
    "raw in temp": (in_temp, "exported", True, 0.0336, True),
    "part of a raw in temp": (cut_in_temp, "unknown", None, None, False),
    "reply in temp": (spilled, "exported", True, 0.033618, False),
    "part of a reply in temp": (cut_spilled, "unknown", None, None, False),
    "reply that cannot be read": (unread, "failed", None, None, False),
    "received": (received, "exported", True, 0.0336, False),
    "half published": (half_published, "exported", True, 0.0336, False),
    "received and swept": (swept, "failed", True, 0.0336, False),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_call_is_taken_up_where_its_process_died(dead: Dead, serve: Serve, case: str) -> None:
    prepare, state, billed, cost, estimated = CASES[case]
    request = dead.request()
    async with dead.ledger() as ledger:
        await prepare(dead, ledger, CallId(request.id, 1))
    service = await serve()
    status = await ended(service, request)
    [call] = status["calls"]
    assert (call["state"], call["billed"], call["cost_usd"], call["estimated"]) == (state, billed, cost, estimated)
    assert service.emulator.requests == 0
    if state == "exported":
        [variation] = status["variations"]
        [export] = variation["exports"].values()
        assert export["file_path"] == f"output/{request.stems[0]}.jpg"
        assert (await service.get(export["url"])).status == 200
        assert variation["metadata"]["sha256"] == call["sha256"] == hashlib.sha256(PICTURE).hexdigest()
        assert service.area("output") == [f"{request.stems[0]}.jpg"]
    else:
        assert status["errors"][0]["billed"] == billed
        assert status["variations"] == []
    if case == "sending":
        assert status["possibly_billed_usd"] == 0.0336
        assert (status["errors"][0]["code"], status["errors"][0]["status"]) == ("outcome_unknown", 502)
    if case == "received and swept":
        assert status["errors"][0]["code"] == "raw_missing"
    if case == "reply that cannot be read":
        assert status["errors"][0]["storage_path"] == call["storage_path"] == f"generated/{request.id}_1.reply"


async def test_exports_of_every_format_are_made_again_under_their_names(dead: Dead, serve: Serve) -> None:
    order = Order(SCRIPT, model=MODEL, encodings=tuple(default_encodings(dead.settings).values()))
    request = dead.request(spec=order_to_json(order, None))
    async with dead.ledger() as ledger:
        await received(dead, ledger, CallId(request.id, 1))
        for each in FORMATS:
            dead.put(export_key(request.stems[0], each), b"of another size")
    service = await serve()
    [variation] = (await ended(service, request))["variations"]
    assert list(variation["exports"]) == list(FORMATS)
    for name, export in variation["exports"].items():
        assert export["file_path"] == export_key(request.stems[0], name)
        got = await service.get(export["url"])
        assert (got.status, got.headers["Content-Type"]) == (200, TABLE[name].mime)
        assert hashlib.sha256(got.body).hexdigest() == export["sha256"]
    assert len(service.area("output")) == len(FORMATS)
    assert service.area("temp") == []


@pytest.mark.parametrize("changes", [{"mode": "async"}, {"idempotency_key": "a"}, {"route": GENERATIONS}])
async def test_planned_calls_that_outlive_their_client_are_sent(
    dead: Dead, serve: Serve, changes: dict[str, Any]
) -> None:
    request = dead.request(2, **changes)
    async with dead.ledger():
        dead.put(f"temp/{request.id}_1.part", b"left by a call that was refused")
    service = await serve()
    status = await ended(service, request)
    assert [call["state"] for call in status["calls"]] == ["exported", "exported"]
    assert service.emulator.requests == 2


@pytest.mark.parametrize(
    "changes",
    [{"mode": "async", "backend": "emulator"}, {"mode": "async", "principal": "cli"}],
)
async def test_planned_calls_of_another_backend_or_of_the_command_line_are_cancelled(
    dead: Dead, serve: Serve, changes: dict[str, Any]
) -> None:
    request = dead.request(**changes)
    async with dead.ledger():
        pass
    service = await serve()
    assert (await ended(service, request))["state"] == "cancelled"
    assert service.emulator.requests == 0


async def test_a_base_that_is_gone_is_a_warning(dead: Dead, serve: Serve) -> None:
    request = dead.request(2, StoredBase("uploads/gone.png", "00", 9, "png"), mode="async")
    async with dead.ledger() as ledger:
        await received(dead, ledger, CallId(request.id, 1))
    service = await serve()
    status = await ended(service, request)
    assert [call["state"] for call in status["calls"]] == ["exported", "cancelled"]
    assert [warning["code"] for warning in status["variations"][0]["warnings"]] == ["composite_failed"]


async def test_a_base_that_is_there_is_blended(dead: Dead, serve: Serve) -> None:
    data = picture_bytes(colour="blue")
    base = StoredBase("uploads/base.png", hashlib.sha256(data).hexdigest(), len(data), "png")
    request = dead.request(1, base)
    dead.put(base.key or "", data)
    async with dead.ledger() as ledger:
        await received(dead, ledger, CallId(request.id, 1))
    service = await serve()
    [variation] = (await ended(service, request))["variations"]
    assert variation["metadata"]["composited"] is True


async def test_files_that_no_process_holds_are_removed_from_temp_and_uploads(
    dead: Dead, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = request_id()
    base = StoredBase(f"uploads/{own}_image.png", "00", 9, "png")
    request = dead.request(1, base, id=own)
    async with dead.ledger() as ledger:
        await received(dead, ledger, CallId(request.id, 1))
    kept = dead.put(base.key or "")
    gone = [dead.put("temp/0123456789abcdef0123456789abcdef.part"), dead.put("uploads/req_1_image.png")]
    young = dead.put("temp/fedcba9876543210fedcba9876543210.part")
    past = time.time() - 60
    for path in (kept, *gone):
        os.utime(path, (past, past))
    service = await serve()
    await ended(service, request)
    async with asyncio.timeout(20):
        while any(path.exists() for path in gone):
            await asyncio.sleep(0.01)
    assert kept.exists()
    assert young.exists()


async def test_raws_that_no_request_names_are_counted_at_the_start(
    dead: Dead, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    request = dead.request()
    async with dead.ledger() as ledger:
        await received(dead, ledger, CallId(request.id, 1))
    strays = [f"req_{number:032}_1.png" for number in range(7)]
    for name in strays:
        dead.put(f"generated/{name}")
    service = await serve()
    await until(lambda: "that no request names" in caplog.text)
    assert f"generated/ has 7 files that no request names, among them {', '.join(strays[:5])}\n" in caplog.text
    assert set(strays) < set(service.area("generated"))


@pytest.mark.parametrize("given_up", ["unknown", "missing"])
async def test_a_raw_that_is_found_later_is_received_and_exported(dead: Dead, serve: Serve, given_up: str) -> None:
    request = dead.request()
    call = CallId(request.id, 1)
    async with dead.ledger() as ledger:
        if given_up == "unknown":
            await ledger.send(call)
            await ledger.lose(call, error_to_json(OutcomeUnknown("it broke", billed=None)))
        else:
            await received(dead, ledger, call)
            missing = error_to_json(RawMissing("it is not there", billed=True))
            await ledger.fail(call, Failure(missing, billed=True))
        dead.put(f"generated/{request.id}_1.png")
    service = await serve()

    async def healed() -> bool:
        return bool((await service.get(f"/api/thumbnails/{request.id}")).json["state"] == "succeeded")

    await until_async(healed)
    status = (await service.get(f"/api/thumbnails/{request.id}")).json
    assert (status["possibly_billed_usd"], status["cost_usd"]) == (0.0, 0.0336)
    kinds = [kind for _, kind, _ in await events(service, request.id)]
    assert kinds[-4:] == ["done", "received", "exported", "done"]


async def test_requests_of_a_second_dead_process_do_not_wait_for_those_of_the_first(
    dead: Dead, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "RESCUE_SECONDS", 0.1)
    gate = Gate()
    service = await serve(QuickEmulator(then=gate))
    another = Dead(service.settings)
    for each in (dead, another):
        each.request(1, mode="async")
        async with each.ledger():
            pass
    await until(lambda: service.emulator.in_flight == 2)
    gate.open.set()
    for each in (dead, another):
        assert (await ended(service, each.requests[0]))["state"] == "succeeded"


async def test_the_graceful_shutdown_waits_for_requests_that_recovery_runs(dead: Dead, serve: Serve) -> None:
    gate = Gate()
    request = dead.request(mode="async")
    async with dead.ledger():
        pass
    service = await serve(QuickEmulator(then=gate))
    await until(lambda: service.emulator.in_flight == 1)
    draining = asyncio.create_task(_drain(service.app, _StopSignals(), 60))
    await until(lambda: service.app[ADMISSION].draining)
    await asyncio.sleep(0.1)
    assert not draining.done()
    gate.open.set()
    await draining
    assert (await ended(service, request))["state"] == "succeeded"


@pytest.mark.parametrize("changes", [{"mode": "async"}, {"idempotency_key": "a"}])
async def test_the_graceful_shutdown_sends_no_more_calls_of_recovered_requests(
    dead: Dead, serve: Serve, changes: dict[str, Any]
) -> None:
    gate = Gate()
    request = dead.request(3, **changes)
    async with dead.ledger():
        pass
    service = await serve(QuickEmulator(then=gate), gemini_concurrency=1)
    await until(lambda: service.emulator.in_flight == 1)
    service.app[JOBS].drain()
    gate.open.set()
    await until(lambda: not service.app[JOBS].running)
    status = (await service.get(f"/api/thumbnails/{request.id}")).json
    assert [call["state"] for call in status["calls"]] == ["exported", "planned", "planned"]
    assert service.emulator.requests == 1


async def test_the_graceful_shutdown_leaves_a_call_that_is_refused_meanwhile_to_the_next_start(serve: Serve) -> None:
    go_on = asyncio.Event()

    async def refused(pending: PendingRequest) -> object:
        await go_on.wait()
        return await raw(429, b"{}")(pending)

    service = await serve(QuickEmulator(then=refused))
    path = f"/api/thumbnails/{(await service.thumbnails(headers={'Prefer': 'respond-async'})).json['request_id']}"
    await until(lambda: service.emulator.in_flight == 1)
    service.app[JOBS].drain()
    go_on.set()
    await until(lambda: not service.app[JOBS].running)
    assert [call["state"] for call in (await service.get(path)).json["calls"]] == ["planned"]


async def test_where_most_raws_are_missing_no_call_is_given_up(
    dead: Dead, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "RESCUE_SECONDS", 0.1)
    for _ in range(recovery.MIN_RAWS):
        dead.request()
    async with dead.ledger() as ledger:
        for request in dead.requests:
            call = CallId(request.id, 1)
            await ledger.send(call)
            await ledger.receive(call, Receipt(f"generated/{request.id}_1.png", "0" * 64, 7, None, 1, True))
    service = await serve()
    await asyncio.sleep(0.5)
    requests = (await service.get("/api/thumbnails")).json["requests"]
    assert {each["state"] for each in requests} == {"running"}
    # At once: the last few that are missing would be given up.
    picture = picture_bytes()
    for request in dead.requests:
        dead.put(f"generated/{request.id}_1.png", picture)
    for request in dead.requests:
        assert (await ended(service, request))["state"] == "succeeded"


async def test_an_order_that_cannot_be_read_ends_its_calls_and_keeps_their_raws(dead: Dead, serve: Serve) -> None:
    request = dead.request(2, spec='{"encodings": [{"format": "of a later version"}]}', mode="async")
    async with dead.ledger() as ledger:
        await received(dead, ledger, CallId(request.id, 1))
    service = await serve()
    status = await ended(service, request)
    assert [call["state"] for call in status["calls"]] == ["failed", "cancelled"]
    assert status["errors"][0]["code"] == "no_export"
    assert service.area("generated") == [f"{request.id}_1.png"]


async def test_a_usage_that_cannot_be_read_stops_no_export(dead: Dead, serve: Serve) -> None:
    request = dead.request()
    async with dead.ledger() as ledger:
        await received(dead, ledger, CallId(request.id, 1))
        await ledger._writer.run(lambda database: database.run("UPDATE calls SET usage = '['"))
    service = await serve()
    status = await ended(service, request)
    assert (status["state"], status["cost_usd"]) == ("succeeded", 0.0336)
    assert status["variations"][0]["metadata"]["usage"] is None


async def test_the_rest_of_a_reply_is_removed_when_its_call_is_given_up(dead: Dead, serve: Serve) -> None:
    request = dead.request()
    async with dead.ledger() as ledger:
        await cut_in_temp(dead, ledger, CallId(request.id, 1))
    service = await serve()
    await ended(service, request)
    await until(lambda: not service.area("temp"))


async def test_temp_files_that_a_process_holds_are_left_to_it(dead: Dead, serve: Serve) -> None:
    request = dead.request()
    async with dead.ledger() as ledger:
        await in_temp(dead, ledger, CallId(request.id, 1))
    part = Path(dead.settings.storage_dir, f"temp/{request.id}_1.part")
    with part.open("rb") as file:
        lock_shared(file.fileno())
        service = await serve()
        assert (await ended(service, request))["calls"][0]["state"] == "unknown"
        assert part.read_bytes() == PICTURE
