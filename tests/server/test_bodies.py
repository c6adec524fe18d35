"""Slow bodies: they take no place, are ended when others wait, do not delay the drain, and leave nothing behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp import StreamReader

from service.server import bodies, connections
from service.server.admission import VARIATION_BYTES, Admission
from service.server.keys import ADMISSION
from service.server.throughput import MinimumThroughput
from service.settings import MIB
from service.store.local import LocalStore
from tests.conftest import Serve
from tests.handlers.test_forms import head
from tests.helpers import (
    CONTENT_TYPE,
    Answer,
    Part,
    Running,
    assert_problem,
    form,
    picture_bytes,
    read_answer,
    until,
    upload,
)
from tests.server.test_admission import TINY, Gate

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROUTES = ("/api/thumbnails", "/api/exports")
BODY = form(upload(picture_bytes()), *TINY)
# The beginning of a form whose picture never ends.
BEGUN = upload(picture_bytes() + bytes(1000)).encode()
QUICK = BEGUN + bytes(50_000)


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "GRACE_SECONDS", 0.1)


def begin(path: str = "/api/exports", length: int = 1_000_000, *headers: str) -> bytes:
    return head(path, f"Content-Length: {length}", *headers)


@contextlib.asynccontextmanager
async def dripping(
    service: Running, sent: bytes = BEGUN, path: str = "/api/exports"
) -> AsyncIterator[asyncio.Task[Answer]]:
    """Send the beginning of a body and then a byte now and then; yields its answer."""

    async def drip() -> Answer:
        async with service.connected() as (reader, writer):
            writer.write(begin(path, 40 * MIB) + sent)
            answer = asyncio.ensure_future(read_answer(reader))
            while not answer.done():
                writer.write(b"\0")
                await asyncio.wait([answer], timeout=0.05)
            return await answer

    count = len(service.app[ADMISSION].bodies)
    task = asyncio.create_task(drip())
    try:
        await until(lambda: len(service.app[ADMISSION].bodies) > count or task.done())
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


def nothing_held(admission: Admission) -> bool:
    bodies = admission.bodies
    counts = (len(bodies), bodies.spooled, bodies.buffered, admission.reserved, sum(admission.inside.values()))
    return not any(counts)


# The average


@pytest.mark.parametrize("path", ROUTES)
async def test_a_body_that_drips_is_408_though_it_never_stops(serve: Serve, path: str) -> None:
    service = await serve(upload_stall_seconds=0.5)
    with service.nothing_spent_or_left():
        async with dripping(service, path=path) as answer:
            body = assert_problem(await answer, 408, "body_timeout", "less than 10240 bytes a second")
            assert body["retryable"] is True
        await until(lambda: nothing_held(service.app[ADMISSION]))


@pytest.mark.parametrize("chunk", [b"1\r\n-\r\n", b"1;" + b"x" * 500 + b"\r\n-\r\n"], ids=["tiny", "with extensions"])
async def test_chunks_of_one_byte_count_as_one_byte(serve: Serve, chunk: bytes) -> None:
    service = await serve(upload_stall_seconds=0.5)
    async with service.connected() as (reader, writer):
        writer.write(head("/api/exports", "Transfer-Encoding: chunked"))
        answer = asyncio.ensure_future(read_answer(reader))
        while not answer.done():
            writer.write(chunk)
            await asyncio.wait([answer], timeout=0.02)
        assert_problem(await answer, 408, "body_timeout")


async def test_a_slow_body_above_the_minimum_is_taken(serve: Serve) -> None:
    """It takes four times UPLOAD_STALL_SECONDS."""
    service = await serve(upload_stall_seconds=0.5, upload_min_bytes_per_second=1000)
    body = form(upload(picture_bytes((100, 100), "#123456", "JPEG") + bytes(10_000)), *TINY)
    async with service.connected() as (reader, writer):
        writer.write(begin(length=len(body)))
        for at in range(20):
            writer.write(body[len(body) * at // 20 : len(body) * (at + 1) // 20])
            await asyncio.sleep(0.1)
        assert (await read_answer(reader)).status == 200


async def test_without_an_average_a_body_may_drip(serve: Serve) -> None:
    service = await serve(upload_stall_seconds=0.3, upload_min_bytes_per_second=0)
    async with service.connected() as (reader, writer):
        writer.write(begin(length=len(BODY)) + BODY[:-20])
        for byte in BODY[-20:]:
            await asyncio.sleep(0.05)
            writer.write(bytes([byte]))
        assert (await read_answer(reader)).status == 200


async def test_time_that_the_disk_takes_does_not_count_as_slow(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    service = await serve(upload_stall_seconds=0.3)
    spool = Admission.spool

    async def slow(*args: Any) -> None:
        await asyncio.sleep(0.6)
        await spool(*args)

    monkeypatch.setattr(Admission, "spool", slow)
    fields = (upload(picture_bytes()), upload(picture_bytes(), "base"), *TINY)
    assert (await service.exports(*fields)).status == 200


async def test_a_body_that_never_comes_after_100_continue_is_408(serve: Serve) -> None:
    service = await serve(upload_stall_seconds=0.3)
    async with service.connected() as (reader, writer):
        writer.write(begin("/api/exports", 1000, "Expect: 100-continue"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert_problem(await read_answer(reader), 408, "body_timeout", "0.3 seconds")


# Places


async def test_bodies_being_read_hold_no_place_and_no_disk_space(serve: Serve) -> None:
    service = await serve(max_requests=3, max_pending_exports=1, export_workers=1)
    admission = service.app[ADMISSION]
    async with dripping(service), dripping(service):
        assert (len(admission.bodies), admission.reserved, admission.inside["exports"]) == (2, 0, 0)
        assert await service.counter("image_export_bodies_being_read") == 2
        answer = await service.exports(upload(picture_bytes()), *TINY)
        assert (await service.thumbnails(*TINY)).status == 200
        for path in ("/healthz", "/readyz", answer.json["exports"]["jpeg"]["url"]):
            assert (await service.get(path)).status == 200
    await until(lambda: nothing_held(admission))


FORM_HEAD = begin("/api/thumbnails", 100_000)
JSON_HEAD = FORM_HEAD.replace(CONTENT_TYPE.encode(), b"application/json")
TEXT = Part("script", b"").encode()[:-2]


@pytest.mark.parametrize("start", [JSON_HEAD + b'{"script": "', FORM_HEAD + TEXT], ids=["JSON", "multipart"])
async def test_texts_of_all_bodies_have_a_bound_of_memory_and_the_slowest_gives_way(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(bodies, "MAX_BUFFERED_BYTES", 60_000)
    service = await serve()
    read = service.app[ADMISSION].bodies
    async with service.connected() as (slow, first), service.connected() as (quick, second):
        first.write(start + b"x" * 20_000)
        await until(lambda: read.buffered >= 20_000)
        second.write(start + b"x" * 50_000)
        assert_problem(await read_answer(slow), 408, "body_timeout", "slowest")
        assert len(read) == 1
        second.write(b"x" * 30_000)
        assert_problem(await read_answer(quick), 503, "busy", "too many large bodies")
    await until(lambda: nothing_held(service.app[ADMISSION]))


@pytest.mark.parametrize("path", ROUTES)
async def test_of_two_that_end_together_one_gets_the_last_place(serve: Serve, path: str) -> None:
    gate = Gate()
    service = await serve(gate.emulator, max_requests=2, max_pending_exports=1)
    first = asyncio.create_task(service.thumbnails(*TINY))
    await until(lambda: gate.emulator.requests == 1)
    body = form(*[("script", "x")] * ("thumb" in path), upload(picture_bytes()), *TINY)
    async with contextlib.AsyncExitStack() as stack:
        pair = [await stack.enter_async_context(service.connected()) for _ in range(2)]
        for _, writer in pair:
            writer.write(begin(path, len(body)) + body[:-1])
        await until(lambda: len(service.app[ADMISSION].bodies) == 2)
        for _, writer in pair:
            writer.write(body[-1:])
        answers = [asyncio.create_task(read_answer(reader)) for reader, _ in pair]
        await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        gate.open.set()
        got = sorted([await answer for answer in answers], key=lambda answer: answer.status)
    assert [answer.status for answer in got] == [200, 503]
    assert_problem(got[1], 503, "busy")
    assert int(got[1].headers["Retry-After"]) > 0
    uploads = [name for name in service.area("uploads") if name.endswith("_image.png")]
    assert [name.partition("_image")[0] for name in uploads] == [got[0].json["request_id"]]
    assert (await first).status == 200
    await until(lambda: nothing_held(service.app[ADMISSION]))


@pytest.mark.parametrize("expect", [(), ("Expect: 100-continue",)])
async def test_with_all_places_at_work_a_body_is_refused_unread(serve: Serve, expect: tuple[str, ...]) -> None:
    gate = Gate()
    service = await serve(gate.emulator, max_requests=1)
    first = asyncio.create_task(service.thumbnails(*TINY))
    await until(lambda: gate.emulator.requests == 1)
    answer = await service.raw(begin("/api/exports", 1_000_000, *expect))
    assert_problem(answer, 503, "busy")
    assert answer.headers["Connection"] == "close"
    gate.open.set()
    assert (await first).status == 200


async def test_the_refusal_reaches_a_client_that_sends_all_before_it_reads(serve: Serve) -> None:
    service = await serve()
    service.app[ADMISSION].drain()
    async with service.connected() as (reader, writer):
        writer.write(begin(length=30 * MIB) + bytes(10))
        await reader.readuntil(b"HTTP/1.1 503 ")
        for _ in range(30):
            writer.write(bytes(MIB))
            await writer.drain()
        writer.write_eof()
        assert b'"code":"draining"' in await reader.read()


async def test_a_disk_that_fills_while_the_body_comes_is_507_at_its_end(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve()
    async with service.connected() as (reader, writer):
        with service.nothing_spent_or_left():
            writer.write(begin(length=len(BODY)) + BODY[:-1])
            await until(lambda: len(service.app[ADMISSION].bodies) == 1)
            monkeypatch.setattr(LocalStore, "_free_bytes", lambda store: VARIATION_BYTES - 1)
            writer.write(BODY[-1:])
            answer = await read_answer(reader)
        assert_problem(answer, 507, "storage_full", "MiB")
        assert answer.headers["Retry-After"] == "60"
    await until(lambda: nothing_held(service.app[ADMISSION]))


# Which body is ended


async def test_the_slowest_body_is_ended_for_a_new_one(serve: Serve) -> None:
    service = await serve(max_requests=2)
    async with dripping(service, QUICK) as quick, dripping(service) as slow:
        expect = {"Expect": "100-continue"}
        assert (await service.exports(upload(picture_bytes()), *TINY, headers=expect)).status == 200
        answer = await slow
        assert_problem(answer, 408, "body_timeout", "slowest")
        assert answer.headers["Connection"] == "close"
        assert not quick.done()
    await until(lambda: nothing_held(service.app[ADMISSION]))


async def test_a_good_body_is_not_ended_while_slow_ones_are_in_their_grace_period(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve(max_requests=2)
    admission = service.app[ADMISSION]
    async with service.connected() as (reader, writer):
        writer.write(begin(length=2 * MIB) + BEGUN)
        await until(lambda: len(admission.bodies) == 1)
        for _ in range(20):
            writer.write(bytes(50_000))
            await asyncio.sleep(0.02)
        for _ in range(5):
            async with dripping(service):
                expect = {"Expect": "100-continue"}
                assert (await service.exports(upload(picture_bytes()), *TINY, headers=expect)).status == 200
            writer.write(bytes(50_000))
        writer.write(bytes(2 * MIB))
        # Its picture has no end: it was read to the last byte.
        assert_problem(await read_answer(reader), 400, "malformed_body")


@pytest.mark.parametrize("sent", [b"", BEGUN, QUICK])
@pytest.mark.slow
async def test_slow_bodies_that_reconnect_keep_no_other_client_out(serve: Serve, sent: bytes) -> None:
    """MAX_REQUESTS=100 and 200 connections, scaled down by ten."""
    service = await serve(max_requests=10, upload_stall_seconds=1)

    async def attack() -> None:
        while True:
            async with dripping(service, sent) as answer:
                await asyncio.wait([answer])

    attackers = [asyncio.create_task(attack()) for _ in range(20)]
    try:
        await until(lambda: len(service.app[ADMISSION].bodies) == 10)
        answers = [await service.exports(upload(picture_bytes()), *TINY) for _ in range(10)]
        expect = {"Expect": "100-continue"}
        expecting = [await service.exports(upload(picture_bytes()), *TINY, headers=expect) for _ in range(10)]
    finally:
        for attacker in attackers:
            attacker.cancel()
        await asyncio.wait(attackers)
    for got in (answers, expecting):
        assert sum(answer.status == 200 for answer in got) >= 9
    await until(lambda: nothing_held(service.app[ADMISSION]))


async def test_a_complete_body_waits_for_no_turn(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    service = await serve(max_requests=1)
    monkeypatch.setattr(bodies.Body, "waited", lambda body: 0.0)
    async with dripping(service) as slow:
        assert (await service.exports(upload(picture_bytes()), *TINY)).status == 200
        async with service.connected() as (reader, writer):
            # It becomes complete only while it waits.
            writer.write(begin(length=len(BODY)) + BODY[:-1])
            await until(lambda: service.app[ADMISSION].bodies._waiting)
            writer.write(BODY[-1:])
            assert (await read_answer(reader)).status == 200
        assert not slow.done()
    await until(lambda: nothing_held(service.app[ADMISSION]))


async def test_the_wait_for_a_turn_is_bounded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    service = await serve(max_requests=1, upload_stall_seconds=1)
    monkeypatch.setattr(bodies.Body, "waited", lambda body: 0.0)
    async with dripping(service, QUICK):
        answer = await service.raw(begin())
    assert_problem(answer, 503, "busy", "bodies")


async def test_a_slow_body_has_a_grace_period_however_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = [0.0]
    monkeypatch.setattr(bodies, "GRACE_SECONDS", 100)
    monkeypatch.setattr(bodies.Body, "waited", lambda body: waited[0])
    admitted = bodies.Bodies(1, MinimumThroughput(20, 0))
    async with admitted.reading(StreamReader(Mock(connected=True), 2**16)):
        for waited[0], left in ((29, 1), (31, 0)):
            admitted.end_slowest(10_000)
            assert len(admitted) == left


async def test_a_waiting_body_that_is_cancelled_at_its_turn_blocks_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    # However slow this machine is, the first is not ended.
    monkeypatch.setattr(bodies, "GRACE_SECONDS", 600)
    admitted = bodies.Bodies(1, MinimumThroughput(20, 0))

    async def read(stream: StreamReader) -> None:
        async with admitted.reading(stream) as body:
            await body.read()

    streams = [StreamReader(Mock(connected=True), 2**16) for _ in range(4)]
    tasks = [asyncio.create_task(read(stream)) for stream in streams]
    await until(lambda: len(admitted._waiting) == 3)
    streams[0].feed_eof()
    await tasks[0]
    tasks[1].cancel()
    admitted._start_waiting()
    # The second has its turn now, but is cancelled before it runs.
    tasks[2].cancel()
    streams[3].feed_eof()
    await asyncio.wait_for(tasks[3], 20)
    assert (len(admitted), admitted._waiting) == (0, {})


# Bytes of the disk


async def test_bodies_hold_at_most_half_of_the_free_space(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def free(store: LocalStore) -> int:
        taken = sum(path.stat().st_size for path in store.layout.roots["uploads"].iterdir())
        return VARIATION_BYTES + 30 * MIB - taken

    monkeypatch.setattr(LocalStore, "_free_bytes", free)
    service = await serve(max_upload_bytes=60 * MIB)
    admission, start = service.app[ADMISSION], upload(picture_bytes()).encode()[:-2]
    with service.nothing_spent_or_left():
        async with dripping(service, start + bytes(20 * MIB)) as slow:
            await until(lambda: admission.bodies.spooled > 19 * MIB)
            async with service.connected() as (reader, writer):
                writer.write(begin(length=60 * MIB) + start + bytes(40 * MIB))
                assert_problem(await slow, 408, "body_timeout", "slowest")
                await until(lambda: admission.bodies.spooled > 39 * MIB)
                assert admission.bodies.spooled <= (VARIATION_BYTES + 30 * MIB) // 2
                writer.write(bytes(10 * MIB))
                answer = await read_answer(reader)
                assert_problem(answer, 507, "storage_full")
                assert answer.headers["Retry-After"] == "60"
    await until(lambda: nothing_held(admission))


# Variants of slowloris


@pytest.mark.parametrize(
    "sent", [b"", b"POST /api/exports HTTP/1.1\r\nHost: localhost\r\n"], ids=["idle", "in its head"]
)
async def test_a_connection_without_a_whole_head_holds_no_place_and_is_closed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "KEEPALIVE_SECONDS", 0.5)
    service = await serve(max_requests=1)
    async with service.connected() as (reader, writer):
        writer.write(sent)
        assert (await service.exports(upload(picture_bytes()), *TINY)).status == 200
        assert len(service.app[ADMISSION].bodies) == 0
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                # Header lines are progress that does not count.
                writer.write(b"X: y\r\n" if sent else b"")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(100), 0.05)


async def test_requests_behind_a_slow_body_take_no_place(serve: Serve) -> None:
    service = await serve(upload_stall_seconds=0.5)
    async with service.connected() as (reader, writer):
        writer.write(begin(length=len(BODY)) + BODY[:-1])
        await until(lambda: len(service.app[ADMISSION].bodies) == 1)
        writer.write(BODY[-1:] + 20 * (begin(length=1000) + bytes(10)))
        assert (await read_answer(reader)).status == 200
        await until(lambda: len(service.app[ADMISSION].bodies) <= 1)
        assert (await read_answer(reader)).status in (400, 408)
    await until(lambda: nothing_held(service.app[ADMISSION]))


async def test_a_half_closed_connection_counts_as_disconnected(serve: Serve) -> None:
    service = await serve()
    with service.nothing_spent_or_left():
        async with service.connected() as (reader, writer):
            writer.write(begin() + QUICK + bytes(100_000))
            await until(lambda: service.app[ADMISSION].bodies.spooled > 0)
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), 20) == b""
        await until(lambda: nothing_held(service.app[ADMISSION]) and not service.area("uploads"))


@pytest.mark.parametrize("path", ROUTES)
async def test_a_client_that_disconnects_at_any_moment_leaves_nothing(serve: Serve, path: str) -> None:
    service = await serve()
    service.app[ADMISSION].bodies._limit = 4
    body = form(upload(picture_bytes() + bytes(300_000)), ("script", ""))
    with service.nothing_spent_or_left():
        for step in range(40):
            async with service.connected() as (_, writer):
                writer.write(begin(path, len(body)) + body[: len(body) * step // 39])
                for _ in range(step % 7):
                    await asyncio.sleep(0)
                writer.transport.abort()
        await until(lambda: nothing_held(service.app[ADMISSION]) and not service.area("uploads"))


# Draining


async def test_bodies_being_read_are_503_as_soon_as_the_drain_begins(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is read, another waits for it."""
    monkeypatch.setattr(bodies, "GRACE_SECONDS", 1000)
    service = await serve(max_requests=1)
    admission = service.app[ADMISSION]
    with service.nothing_spent_or_left():
        async with dripping(service) as slow, service.connected() as (reader, writer):
            writer.write(begin())
            await until(lambda: admission.bodies._waiting)
            admission.drain()
            await asyncio.wait_for(admission.emptied(), 20)
            for answer in (await slow, await read_answer(reader)):
                assert_problem(answer, 503, "draining")
                assert answer.headers["Connection"] == "close"
    await until(lambda: nothing_held(admission))


async def test_a_body_that_passes_while_the_drain_begins_is_503(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    service = await serve()
    admission, probe = service.app[ADMISSION], LocalStore.probe

    async def and_drain(store: LocalStore) -> int:
        admission.drain()
        return await probe(store)

    monkeypatch.setattr(LocalStore, "probe", and_drain)
    assert_problem(await service.raw(begin()), 503, "draining")
