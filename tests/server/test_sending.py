"""Prepared responses: the head that aiohttp would have sent, and complete bodies."""

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.server.keys import ADMISSION
from service.settings import MIB
from tests.conftest import Serve
from tests.handlers.test_downloads import put
from tests.helpers import Running, read_answer, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

DATA = os.urandom(250_000)


def asking(name: str, version: str = "1.1", *lines: str) -> bytes:
    return "\r\n".join([f"GET /static/output/{name} HTTP/{version}", "Host: localhost", *lines, "", ""]).encode()


@pytest.mark.parametrize(
    ("version", "line", "connection"),
    [
        ("1.1", "X: y", None),
        ("1.1", "Connection: close", "close"),
        ("1.0", "X: y", None),
        ("1.0", "Connection: keep-alive", "keep-alive"),
    ],
)
async def test_the_head_is_what_aiohttp_would_send(
    service: Running, version: str, line: str, connection: str | None
) -> None:
    small, large = (put(service, data=data) for data in (DATA, bytes(MIB)))
    got, reference = [await service.raw(asking(name, version, line)) for name in (small, large)]
    assert got.body == DATA
    assert got.headers.keys() == reference.headers.keys()
    for header in ("Server", "Content-Type", "Cache-Control", "Accept-Ranges", "X-Content-Type-Options"):
        assert got.headers[header] == reference.headers[header]
    assert got.headers["Date"][:22] == reference.headers["Date"][:22]
    assert got.headers.get("Connection") == connection


@pytest.mark.parametrize("lasting", [True, False])
async def test_the_connection_lasts_as_long_as_it_was_asked_to(service: Running, lasting: bool) -> None:
    name = put(service)
    async with service.connected() as (reader, writer):
        writer.write(asking(name, "1.1", f"Connection: {'keep-alive' if lasting else 'close'}"))
        assert (await read_answer(reader)).status == 200
        if lasting:
            writer.write(asking(name))
            assert (await read_answer(reader)).status == 200
        else:
            assert await reader.read() == b""


@pytest.fixture
def narrow() -> Iterator[socket.socket]:
    """A client with a small receive buffer."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        yield client


async def test_what_the_socket_does_not_take_follows(service: Running, narrow: socket.socket) -> None:
    """Ten pipelined requests, read byte by byte at first: each body waits in part behind the one before."""
    name, loop = put(service, data=DATA), asyncio.get_running_loop()
    await loop.sock_connect(narrow, (service.host, service.port))
    await loop.sock_sendall(narrow, asking(name) * 10)
    got = bytearray()
    while got.count(b"HTTP/1.1 200 OK\r\n") < 10 or not got.endswith(DATA):
        got += await asyncio.wait_for(loop.sock_recv(narrow, 1000 if len(got) < 50_000 else MIB), 20)
    assert got.count(DATA) == 10


async def test_a_client_that_reads_nothing_of_a_prepared_response_is_disconnected(serve: Serve) -> None:
    service = await serve(download_stall_seconds=0.3)
    name, admission = put(service, data=DATA), service.app[ADMISSION]
    async with service.connected() as (_, writer):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # of every socket transport
        writer.write(asking(name) * 100)
        await until(lambda: admission.inside["download"] == 1)
        await until(lambda: admission.inside["download"] == 0)


async def test_a_client_that_does_not_read_the_end_of_a_prepared_response_is_disconnected(
    serve: Serve, narrow: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    writev = os.writev

    def crowded(descriptor: int, parts: tuple[bytes, ...]) -> int:
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return writev(descriptor, parts)

    monkeypatch.setattr(os, "writev", crowded)
    service, loop = await serve(download_stall_seconds=0.3), asyncio.get_running_loop()
    name, admission = put(service, data=DATA[:40_000]), service.app[ADMISSION]
    await loop.sock_connect(narrow, (service.host, service.port))
    await loop.sock_sendall(narrow, asking(name))
    await until(lambda: admission.inside["download"] == 1)
    await until(lambda: admission.inside["download"] == 0)
    got = bytearray()
    while part := await asyncio.wait_for(loop.sock_recv(narrow, MIB), 20):
        got += part
    assert len(got) < 40_000


async def test_a_reset_by_the_client_logs_no_error(service: Running, caplog: pytest.LogCaptureFixture) -> None:
    name, loop = put(service, data=DATA), asyncio.get_running_loop()
    assert (await service.get(f"/static/output/{name}")).body == DATA
    for _ in range(50):
        client = socket.socket()
        client.setblocking(False)
        await loop.sock_connect(client, (service.host, service.port))
        await loop.sock_sendall(client, asking(name) * 20)
        # A RST instead of a FIN.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(BlockingIOError):
            client.recv(1000)
        client.close()
    await until(lambda: service.app[ADMISSION].inside["download"] == 0)
    assert (await service.get(f"/static/output/{name}")).body == DATA
    assert "fault" not in caplog.text


async def test_a_lost_client_logs_no_error(
    service: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lost(*_: object) -> int:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    monkeypatch.setattr(os, "writev", lost)
    async with service.connected() as (reader, writer):
        writer.write(asking(put(service)))
        assert await asyncio.wait_for(reader.read(), 20) == b""
    assert "fault" not in caplog.text


async def test_a_prepared_response_is_complete_although_its_file_is_removed(
    service: Running, narrow: socket.socket
) -> None:
    name, loop = put(service, data=DATA), asyncio.get_running_loop()
    await loop.sock_connect(narrow, (service.host, service.port))
    await loop.sock_sendall(narrow, asking(name))
    got = bytearray(await loop.sock_recv(narrow, 1000))
    Path(service.settings.area("output"), name).unlink()
    while not got.endswith(DATA):
        got += await asyncio.wait_for(loop.sock_recv(narrow, MIB), 20)
