"""Connections are accepted as far as descriptors last; idle ones go first."""

import asyncio
import errno
import os
import socket
from typing import Any

import pytest

from service.server import accepting
from service.server.keys import ADMISSION
from service.store.descriptors import ACCEPT, CONNECT
from tests.helpers import CONTENT_TYPE, Running, read_answer, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
EXPORT = f"POST /api/exports HTTP/1.1\r\nHost: localhost\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: 3\r\n\r\n"


def short_of(monkeypatch: pytest.MonkeyPatch, *, connect: int = 0, accept: int = 1) -> None:
    monkeypatch.setattr(accepting, "spare", {CONNECT: connect, ACCEPT: accept}.__getitem__)


async def test_the_connection_that_was_idle_longest_goes_for_a_new_one(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What other tests left open would go first.
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


async def test_a_connection_with_a_request_under_way_stays(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async with service.connected() as (reader, writer):
        writer.write(EXPORT.encode())
        await until(lambda: len(service.app[ADMISSION].bodies) > 0)
        short_of(monkeypatch, connect=-10_000)
        assert (await service.raw(HEALTHZ)).status == 200
        writer.write(b"abc")
        assert (await read_answer(reader)).status == 400


async def test_connections_wait_where_none_can_be_had(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        short_of(patch, accept=0)
        asked = asyncio.create_task(service.raw(HEALTHZ))
        await asyncio.sleep(5 * accepting.PAUSE_SECONDS)
        assert not asked.done()
    assert (await asked).status == 200


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED])
async def test_a_refusal_to_accept_is_waited_out_in_silence(
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
