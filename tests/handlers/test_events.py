"""Server-sent events: the progress of a request, each event sent once its row is durable, without gap or duplicate."""

import asyncio
import json
import socket
from typing import Any

import aiohttp
import pytest

from service.server.keys import ADMISSION, JOBS
from tests.conftest import Serve
from tests.handlers.test_idempotency import JPEG, Gate
from tests.helpers import QuickEmulator, Running, assert_problem, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

Event = tuple[int, str, dict[str, Any]]


async def events(service: Running, request_id: str, after: int | None = None, stop: int = 1000) -> list[Event]:
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    async with service.session.get(f"{service.url}/api/thumbnails/{request_id}/events", headers=headers) as got:
        assert got.status == 200
        assert got.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert (got.headers["Cache-Control"], got.headers["X-Accel-Buffering"]) == ("no-store", "no")
        assert await got.content.readuntil(b"\n\n") == b"retry: 2000\n\n"
        return await read(got, stop)


async def read(got: aiohttp.ClientResponse, stop: int = 1000) -> list[Event]:
    found: list[Event] = []
    while len(found) < stop:
        try:
            block = (await got.content.readuntil(b"\n\n")).decode()
        except asyncio.IncompleteReadError:
            break
        if not block.strip(": \n") or not block:
            if not block:
                break
            continue
        lines = dict(line.split(": ", 1) for line in block.strip().split("\n"))
        found.append((int(lines["id"]), lines["event"], json.loads(lines["data"])))
    return found


async def test_every_event_of_a_request_in_order(service: Running) -> None:
    answer = await service.thumbnails(JPEG, ("count", "2"))
    request_id = answer.json["request_id"]
    seen = await events(service, request_id)
    assert [number for number, _, _ in seen] == list(range(1, 8))
    assert sorted(kind for _, kind, _ in seen) == [
        "done",
        "exported",
        "exported",
        "received",
        "received",
        "sent",
        "sent",
    ]
    assert all(data["request_id"] == request_id and data["at"] for _, _, data in seen)
    exported = [data["variation"] for _, kind, data in seen if kind == "exported"]
    assert sorted(exported, key=lambda each: str(each["id"])) == answer.json["variations"]
    received = next(data for _, kind, data in seen if kind == "received")
    assert set(received) == {"request_id", "at", "id", "attempt", "storage_path", "size"}
    assert set(seen[-1][2]) == {"request_id", "at", "state", "cost_usd", "possibly_billed_usd"}
    assert seen[-1][2]["state"] == "succeeded"


async def test_they_come_as_things_happen(serve: Serve) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate), sse_heartbeat_seconds=0.05)
    answer = await service.thumbnails(JPEG, headers={"Prefer": "respond-async"})
    url = f"{service.url}/api/thumbnails/{answer.json['request_id']}/events"
    async with service.session.get(url) as got:
        await got.content.readuntil(b"\n\n")
        assert [kind for _, kind, _ in await read(got, 1)] == ["sent"]
        assert await got.content.readuntil(b"\n\n") == b": \n\n"
        gate.open.set()
        assert [kind for _, kind, _ in await read(got)] == ["received", "exported", "done"]


async def test_a_stream_goes_on_after_the_last_event_that_was_seen(service: Running) -> None:
    request_id = (await service.thumbnails(JPEG)).json["request_id"]
    whole = await events(service, request_id)
    for after in range(len(whole)):
        assert await events(service, request_id, after) == whole[after:]
    path = f"/api/thumbnails/{request_id}/events"
    assert (await service.get(path, Last_Event_ID=str(len(whole)))).status == 204
    assert (await service.get(f"{path}?last_event_id={len(whole)}")).status == 204
    for wrong in ("-1", "x", "1.5", str(len(whole) + 1), "9" * 30, "%D9%A1"):
        assert_problem(await service.get(f"{path}?last_event_id={wrong}"), 400, "malformed_request")
    answer = await service.get(f"{path}?last_event_id=1", Last_Event_ID="2")
    assert_problem(answer, 400, "malformed_request")


async def test_a_failed_variation_tells_its_error(serve: Serve) -> None:
    service = await serve(QuickEmulator(faults=["blocked_safety"]))
    await service.thumbnails(JPEG)
    [status] = (await service.get("/api/thumbnails")).json["requests"]
    [_, (_, kind, data), (_, _, done)] = await events(service, status["request_id"])
    assert (kind, data["error"]) == ("failed", status["errors"][0])
    assert done["state"] == status["state"] == "failed"


async def test_many_readers_see_the_same(serve: Serve) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate))
    request_id = (await service.thumbnails(JPEG, ("count", "4"), headers={"Prefer": "respond-async"})).json[
        "request_id"
    ]
    readers = [asyncio.create_task(events(service, request_id)) for _ in range(20)]
    await until(lambda: service.app[ADMISSION].inside["download"] == 20)
    gate.open.set()
    seen = await asyncio.gather(*readers)
    assert all(each == seen[0] for each in seen)
    assert [number for number, _, _ in seen[0]] == list(range(1, 14))


async def test_at_the_drain_streams_end_at_once(serve: Serve) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate))
    request_id = (await service.thumbnails(JPEG, headers={"Prefer": "respond-async"})).json["request_id"]
    reader = asyncio.create_task(events(service, request_id))
    await until(lambda: service.app[ADMISSION].inside["download"] == 1 and service.emulator.in_flight == 1)
    service.app[JOBS].drain()
    assert [kind for _, kind, _ in await reader] == ["sent"]
    gate.open.set()


async def test_a_client_that_does_not_read_is_dropped(serve: Serve) -> None:
    service = await serve(max_variations=64, download_stall_seconds=0.3)
    answer = await service.thumbnails(JPEG, ("count", "32"), script="\N{GRINNING FACE}" * 32_000)
    path = f"/api/thumbnails/{answer.json['request_id']}/events"
    head = f"GET {path} HTTP/1.1\r\nHost: {service.host}:{service.port}\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, (service.host, service.port))
        await asyncio.get_running_loop().sock_sendall(client, head.encode())
        await until(lambda: service.app[ADMISSION].inside["download"] == 1)
        await until(lambda: service.app[ADMISSION].inside["download"] == 0)


async def test_cancelling_and_deleting_are_seen_by_readers(serve: Serve) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate), gemini_concurrency=1)
    request_id = (await service.thumbnails(JPEG, ("count", "2"), headers={"Prefer": "respond-async"})).json[
        "request_id"
    ]
    reader = asyncio.create_task(events(service, request_id))
    await until(lambda: service.emulator.in_flight == 1)
    await service.ask("POST", f"/api/thumbnails/{request_id}/cancel")
    gate.open.set()
    seen = await reader
    assert [kind for _, kind, _ in seen] == ["sent", "failed", "received", "exported", "done"]
    assert seen[1][2]["error"]["code"] == "cancelled"
    assert seen[-1][2]["state"] == "partial"
