"""Requests whose client disconnects, and whose steps the ledger refuses."""

import asyncio
from typing import Any

import pytest

from service.callers import Caller
from service.emulator.responders import raw
from service.jobs.job import Submission
from service.orders import Order
from service.server.keys import ADMISSION, JOBS
from tests.conftest import Serve
from tests.handlers.test_idempotency import JPEG, Gate, keyed
from tests.helpers import SCRIPT, QuickEmulator, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("key", [True, False])
async def test_a_client_that_disconnects_while_its_request_is_written_leaves_none_that_nobody_runs(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, key: bool
) -> None:
    service = await serve()
    ledger = service.app[JOBS].ledger
    open_now, written, go_on = ledger.open, asyncio.Event(), asyncio.Event()

    async def open_slowly(*args: Any) -> Any:
        opened = await open_now(*args)
        written.set()
        await go_on.wait()
        return opened

    monkeypatch.setattr(ledger, "open", open_slowly)
    client = asyncio.create_task(service.thumbnails(JPEG, headers=keyed("a") if key else None))
    await written.wait()
    client.cancel()
    await asyncio.sleep(0.2)
    go_on.set()

    async with asyncio.timeout(20):
        while (status := (await service.get("/api/thumbnails")).json["requests"][0])["state"] == "running":
            await asyncio.sleep(0.01)
    assert status["state"] == ("succeeded" if key else "cancelled")
    assert service.emulator.requests == int(key)


@pytest.mark.parametrize(
    ("path", "body", "headers", "calls"),
    [
        ("/api/thumbnails", {"script": SCRIPT}, {"Idempotency-Key": "a"}, 1),
        ("/api/thumbnails", {"script": SCRIPT}, {"Prefer": "respond-async"}, 1),
        ("/v1/images/generations", {"prompt": SCRIPT}, {}, 1),
        ("/api/thumbnails", {"script": SCRIPT}, {}, 0),
    ],
)
async def test_a_request_that_its_client_can_find_again_is_begun_even_if_the_client_leaves_at_once(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: dict[str, str],
    headers: dict[str, str],
    calls: int,
) -> None:
    service = await serve()
    admission = service.app[ADMISSION]
    find_now, looking, go_on = service.app[JOBS].find, asyncio.Event(), asyncio.Event()

    async def find_slowly(submission: Submission) -> Any:
        looking.set()
        await go_on.wait()
        return await find_now(submission)

    monkeypatch.setattr(service.app[JOBS], "find", find_slowly)
    client = asyncio.create_task(service.ask("POST", path, json=body, headers=headers))
    await looking.wait()
    client.cancel()
    await asyncio.sleep(0.2)
    go_on.set()

    await until(lambda: service.emulator.requests >= calls and not admission.inside["thumbnails"])
    assert service.emulator.requests == calls
    assert admission.reserved == 0


async def test_of_many_requests_at_once_the_first_call_leaves_before_the_last_request_is_written(serve: Serve) -> None:
    gate, many = Gate(), 300
    service = await serve(QuickEmulator(then=gate), gemini_concurrency=many)
    jobs, caller = service.app[JOBS], Caller("-", sees_all=True)
    begun = await asyncio.gather(*(jobs.begin(Order(SCRIPT), Submission(caller), None) for _ in range(many)))
    await until(lambda: service.emulator.in_flight > 0)
    rows = await jobs.ledger.newest(None, many)
    first_sent = min(call.sent for _, calls in rows for call in calls if call.sent)
    assert first_sent < max(row.created for row, _ in rows)
    for row, _ in begun:
        await jobs.cancel(row.id, caller)
    gate.open.set()


TOKENS = b'"usageMetadata": {"promptTokenCount": 12, "candidatesTokenCount": 1120}'


@pytest.mark.parametrize(
    ("status", "body", "cost", "estimated"),
    [
        (200, b'{"candidates": [{"finishReason": "SAFETY"}], %s}' % TOKENS, 0.033618, False),
        (200, b'{"candidates": [{"content": {"parts": [{"text": "no"}]}}], %s}' % TOKENS, 0.033618, False),
        (
            200,
            b'{"candidates": [{"content": {"parts": [{"inlineData": {"data": "!"}}]}}], ' + TOKENS + b"}",
            0.033618,
            False,
        ),
        (200, b"{%s" % TOKENS, None, False),
        (500, b'{"error": {"code": 500}, %s}' % TOKENS, 0.033618, False),
        (500, b'{"error": {"code": 500}}', 0.0, False),
        (200, b"{}", None, False),
    ],
)
async def test_a_failed_call_costs_what_it_counted(
    serve: Serve, status: int, body: bytes, cost: float | None, estimated: bool
) -> None:
    service = await serve(QuickEmulator(then=raw(status, body)))
    answer = await service.thumbnails()
    [call] = (await service.get("/api/thumbnails")).json["requests"][0]["calls"]
    assert (call["state"], call["cost_usd"], call["estimated"]) == ("failed", cost, estimated), answer.json
    usage = (await service.get("/api/usage")).json
    assert usage["total"]["cost_usd"] == usage["budget"]["spent_usd"] == (cost or 0)


async def test_calls_that_cost_more_than_was_reserved_are_counted(serve: Serve) -> None:
    tokens = b'"usageMetadata": {"promptTokenCount": 12, "candidatesTokenCount": %d}'
    blocked = b'{"candidates": [{"finishReason": "SAFETY"}], %s}'
    for count, overspent in ((2200, 0), (2300, 1)):
        service = await serve(QuickEmulator(then=raw(200, blocked % (tokens % count))))
        await service.thumbnails()
        assert await service.counter("image_export_overspent_calls_total") == overspent
