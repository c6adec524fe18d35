"""Accepting connections while file descriptors are short."""

import asyncio
import errno
import os
import socket
from typing import Any

import pytest

from service.server import accepting, connections
from service.server.keys import ADMISSION
from service.store.descriptors import ACCEPT, CONNECT
from tests.conftest import Serve
from tests.helpers import CONTENT_TYPE, QuickEmulator, Running, picture_bytes, read_answer, until, upload

pytestmark = pytest.mark.asyncio(loop_scope="session")

HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
EXPORT = (
    f"POST /api/exports HTTP/1.1\r\nHost: localhost\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: 99999\r\n\r\n"
)


def short_of(monkeypatch: pytest.MonkeyPatch, *, connect: int = 0, accept: int = 1) -> None:
    monkeypatch.setattr(accepting, "spare", {CONNECT: connect, ACCEPT: accept}.__getitem__)


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "FRESH_SECONDS", 0)


@pytest.mark.usefixtures("no_grace")
async def test_the_longest_idle_connection_is_closed_for_a_new_one(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Close the connections of other tests first.
    short_of(monkeypatch, connect=-10_000)
    assert (await service.raw(HEALTHZ)).status == 200
    short_of(monkeypatch, connect=1)
    async with service.connected() as (first, _):
        short_of(monkeypatch)
        async with service.connected() as (second, writer):
            async with asyncio.timeout(20):
                assert await first.read() == b""
            writer.write(HEALTHZ)
            assert (await read_answer(second)).status == 200


async def test_a_connection_at_work_is_not_closed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    service = await serve(QuickEmulator(delay_seconds=1))
    asked = asyncio.create_task(service.thumbnails())
    await until(lambda: service.app[ADMISSION].inside["thumbnails"])
    short_of(monkeypatch, connect=-10_000)
    assert (await service.raw(HEALTHZ)).status == 200
    assert (await asked).status == 200


async def test_as_many_unused_connections_are_closed_as_are_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    short_of(monkeypatch, connect=0, accept=0)
    asked: list[int] = []

    def close_unused(count: int) -> bool:
        asked.append(count)
        return True

    listener = socket.create_server(("127.0.0.1", 0))
    with accepting.accepting([listener], asyncio.Protocol, close_unused, accepting.Reserve()):
        pairs = [await asyncio.open_connection(*listener.getsockname()) for _ in range(12)]
        await until(lambda: 12 in asked)
        for _, writer in pairs:
            writer.close()


async def test_a_new_connection_is_not_closed_before_its_request_can_be_read(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of(monkeypatch, connect=-10_000)
    answers = await asyncio.gather(*(service.raw(HEALTHZ) for _ in range(50)))
    assert {answer.status for answer in answers} == {200}


@pytest.mark.parametrize(
    "sent", [b"", upload(picture_bytes() + bytes(50_000)).encode()], ids=["slow", "above the minimum"]
)
async def test_the_slowest_body_is_ended_for_a_new_connection(
    service: Running, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    async with service.connected() as (reader, writer):
        writer.write(EXPORT.encode() + sent)
        await until(lambda: len(service.app[ADMISSION].bodies))
        short_of(monkeypatch, connect=-10_000, accept=0)

        async def ask_again() -> None:
            while True:
                assert (await service.raw(HEALTHZ)).status == 200

        asking = asyncio.create_task(ask_again())
        async with asyncio.timeout(20):
            assert (await read_answer(reader)).status == 408
            # The rest of its body is not discarded for long.
            assert not await reader.read()
        asking.cancel()


async def test_one_connection_at_a_time_is_accepted_when_there_is_no_descriptor(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of(monkeypatch, accept=-100)
    for _ in range(3):
        assert (await service.raw(HEALTHZ)).status == 200


async def test_connections_stay_queued_while_none_can_be_accepted(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        short_of(patch, accept=0)
        patch.setattr(accepting.Reserve, "accept", lambda *_: None)
        asked = asyncio.create_task(service.raw(HEALTHZ))
        await asyncio.sleep(5 * accepting.PAUSE_SECONDS)
        assert not asked.done()
    assert (await asked).status == 200


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED])
async def test_an_error_of_accept_is_retried_without_a_log_line(
    service: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    accept, refused = socket.socket.accept, 0

    def refuse_at_first(listener: socket.socket) -> tuple[socket.socket, Any]:
        nonlocal refused
        refused += 1
        if refused < 4:
            raise OSError(number, os.strerror(number))
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", refuse_at_first)
    assert (await service.raw(HEALTHZ)).status == 200
    assert refused >= 4
    assert "accept" not in caplog.text
