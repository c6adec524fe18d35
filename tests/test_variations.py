"""Calls whose client disconnected: those that were sent are received, no other is sent."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

import pytest
from aiohttp import web

from service.emulator.faults import FAULTS
from service.emulator.responders import PendingRequest, error, raw
from service.errors import Blocked
from service.gemini.call import Reference
from service.orders import Event, Failed, Order, Sent
from service.server.keys import ADMISSION, EXPORTS, THUMBNAILS
from service.store.scratch import Scratch
from service.thumbnails import ThumbnailService
from service.variations import VariationState
from tests.conftest import Serve
from tests.gemini.virtual import Attempt, Outcome, ScriptedGemini, refused
from tests.helpers import SCRIPT, Answer, QuickEmulator, Running, assert_problem, picture_bytes, until, upload

pytestmark = pytest.mark.asyncio(loop_scope="session")

BUSY = {
    "429": FAULTS["rate_limited"],
    "503": FAULTS["unavailable"],
    "503 without a body": raw(503),
    "429 that asks for a moment": error(429, "slow down", retry_after="1"),
}


class Gate:
    """A fault whose answer is delayed until `open` is set."""

    def __init__(self, fault: str) -> None:
        self.open = asyncio.Event()
        self.fault = BUSY[fault]

    async def __call__(self, call: PendingRequest) -> web.StreamResponse:
        await self.open.wait()
        return await self.fault(call)


async def asked(service: Running, count: int = 1, *more: Any) -> "asyncio.Task[Answer]":
    return asyncio.create_task(service.thumbnails(("count", str(count)), ("formats", "jpeg"), *more))


async def hang_up(request: "asyncio.Task[Answer]") -> None:
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request


async def all_given_back(service: Running) -> None:
    """Wait until requests of disconnected clients hold no place, disk space or file any more."""
    admission = service.app[ADMISSION]
    await until(lambda: not (admission.inside["thumbnails"] or service.area("temp")))
    assert admission.reserved == 0
    assert not service.area("generated")


async def never_sent_again(service: Running, requests: int) -> None:
    """Another request is the only call since: a call that still waited would be sent before it."""
    await all_given_back(service)
    service.emulator.play(then=None)  # type: ignore[attr-defined]  # a QuickEmulator
    assert (await service.thumbnails(("formats", "jpeg"))).status == 200
    assert service.emulator.requests == requests + 1


@pytest.mark.parametrize("fault", BUSY)
async def test_a_refused_call_is_not_sent_again_after_its_client_disconnected(serve: Serve, fault: str) -> None:
    gate = Gate(fault)
    emulator = QuickEmulator(then=gate)
    service = await serve(emulator, gemini_retry_seconds=60)
    request = await asked(service, 4)
    await until(lambda: emulator.in_flight == 4)
    await hang_up(request)
    await until(lambda: all(map(abandoned, service.app[THUMBNAILS]._running.values())))
    gate.open.set()
    await never_sent_again(service, 4)


def abandoned(variations: list[VariationState]) -> bool:
    return all(not variation.wanted for variation in variations)


async def test_queued_calls_of_disconnected_clients_are_not_sent(serve: Serve) -> None:
    gate = Gate("503")
    emulator = QuickEmulator(then=gate)
    service = await serve(emulator, gemini_retry_seconds=60, gemini_concurrency=1)
    requests = [await asked(service, 4) for _ in range(3)]
    await until(lambda: emulator.in_flight == 1 and service.app[ADMISSION].inside["thumbnails"] == 3)
    for request in requests:
        await hang_up(request)
    await until(lambda: service.app[ADMISSION].inside["thumbnails"] == 1)
    gate.open.set()
    await never_sent_again(service, 1)


async def test_a_call_in_backoff_is_not_sent_again(serve: Serve) -> None:
    emulator = QuickEmulator(then="unavailable")
    service = await serve(emulator, gemini_retry_seconds=60)
    request = await asked(service, 2)
    await until(lambda: emulator.requests == 2 and emulator.in_flight == 0)
    await hang_up(request)
    await all_given_back(service)
    # The backoff itself belongs to the model, and applies to the next call.
    await never_sent_again(service, 2)


@contextmanager
def held_up(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Block a method that runs in a thread while the context is open; the events are set when it begins and ends."""
    begun, ended, go_on, method = threading.Event(), threading.Event(), threading.Event(), getattr(owner, name)

    def waiting(*args: Any) -> Any:
        begun.set()
        go_on.wait(20)
        try:
            return method(*args)
        finally:
            ended.set()

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, waiting)
        try:
            yield begun, ended
        finally:
            go_on.set()


@pytest.mark.parametrize(("owner", "name"), [(Scratch, "_preallocate"), (Reference, "encode")])
async def test_a_client_that_disconnects_while_its_call_is_prepared_causes_none(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    service = await serve()
    with held_up(monkeypatch, owner, name) as (begun, ended):
        request = await asked(service, 1, upload(picture_bytes()))
        await until(begun.is_set)
        await hang_up(request)
        # The call ends although the thread is still blocked.
        await until(lambda: not service.app[ADMISSION].inside["thumbnails"])
    await until(ended.is_set)
    await never_sent_again(service, 0)


@pytest.mark.parametrize("fault", ["429", "503"])
async def test_a_client_that_disconnects_while_a_retry_is_prepared_causes_none(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    emulator = QuickEmulator(then=BUSY[fault])
    service = await serve(emulator, gemini_retry_seconds=60)
    request = await asked(service)
    await until(lambda: emulator.requests == 1)
    with held_up(monkeypatch, Scratch, "_preallocate") as (begun, ended):
        await until(begun.is_set)
        await hang_up(request)
        await until(lambda: not service.app[ADMISSION].inside["thumbnails"])
    await until(ended.is_set)
    await never_sent_again(service, 1)


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[int, Callable[[], int]]]:
    """A server that accepts connections and never answers: its port, and how many it accepted."""
    taken: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: taken.append(writer), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], lambda: len(taken)
    finally:
        server.close()
        for writer in taken:
            writer.close()


async def test_a_call_that_connects_is_cancelled_when_its_client_disconnects(serve: Serve) -> None:
    async with silent_server() as (port, connections):
        service = await serve(gemini_base_url=f"https://127.0.0.1:{port}", gemini_timeout_seconds=600)
        request = await asked(service)
        await until(connections)
        await hang_up(request)
        await all_given_back(service)


async def test_after_stop_sent_calls_are_awaited_and_nothing_is_sent(serve: Serve) -> None:
    gate = Gate("503")
    emulator = QuickEmulator(then=gate)
    service = await serve(emulator, gemini_retry_seconds=60, gemini_concurrency=1)
    thumbnails, events = service.app[THUMBNAILS], list[Event]()
    async for event in thumbnails.generate(Order(SCRIPT, count=3)):
        events.append(event)
        if isinstance(event, Sent):
            thumbnails.stop()
            gate.open.set()
    [sent, failed] = events
    assert sent == Sent("var-1")
    assert isinstance(failed, Failed)
    assert (failed.error.code, failed.error.billed) == ("cancelled", False)
    assert emulator.requests == 1
    with pytest.raises(asyncio.CancelledError):
        async for _ in thumbnails.generate(Order(SCRIPT)):
            pass
    assert emulator.requests == 1
    assert not service.area("temp")


async def test_close_sends_nothing(serve: Serve) -> None:
    emulator = QuickEmulator(then="unavailable")
    service = await serve(emulator, gemini_retry_seconds=60)
    request = await asked(service, 4)
    await until(lambda: emulator.requests == 4 and emulator.in_flight == 0)
    await service.app[THUMBNAILS].close()
    assert_problem(await request, 409, "cancelled")
    await all_given_back(service)
    assert emulator.requests == 4


async def test_only_calls_that_were_made_are_counted(serve: Serve) -> None:
    emulator = QuickEmulator(then="daily_quota")
    service = await serve(emulator, gemini_concurrency=1)
    answer = await service.thumbnails(("count", "4"))
    assert [each["code"] for each in answer.json["errors"]] == ["quota_exhausted"] * 4
    assert emulator.requests == 1
    assert await service.counter("image_export_gemini_calls_total") == 1


@pytest.mark.parametrize("seed", range(3))
async def test_whenever_clients_disconnect_no_call_is_sent_for_them_afterwards(serve: Serve, seed: int) -> None:
    chance, gone, late = random.Random(seed), set[str](), list[str]()
    service = await serve()

    def outcome(one: Attempt) -> Outcome:
        script = one.call.prompt.rpartition("order ")[2].split()[0]
        if script in gone:
            late.append(script)
        return chance.uniform(0, 0.05), chance.choice([refused(), refused(0.01), Blocked("no", billed=False)])

    gemini = ScriptedGemini(outcome, slots=3, retry=2)
    thumbnails = ThumbnailService(gemini, service.app[EXPORTS])

    async def read(number: int) -> None:
        ended = asyncio.Event()
        events = thumbnails.generate(Order(f"order {number} of many", count=2), ended.set)
        try:
            async with asyncio.timeout(chance.choice([0.001, 0.02, 0.1, 0.6, 20])), aclosing(events):
                async for _ in events:
                    pass
        except TimeoutError:
            gone.add(str(number))
        await asyncio.wait_for(ended.wait(), 20)

    await asyncio.gather(*(read(number) for number in range(60)))
    assert gone
    assert late == []
    assert not service.area("temp")
    assert gemini._queue._free_slots == 3
