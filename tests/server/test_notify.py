"""The service and systemd: a socket in place of systemd's hears what `serve` sends."""

import asyncio
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.server.notify import notify, watchdog_seconds
from tests.server.test_run import Start, start, storage

# Fixtures.
__all__ = ["start", "storage"]

WAIT_SECONDS = 60.0


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """NOTIFY_SOCKET, as a path and as an abstract name, and the socket that listens there."""
    name = f"@image-export-{uuid.uuid4()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        listener.setblocking(False)
        yield name, listener


async def heard(listener: socket.socket) -> str:
    async with asyncio.timeout(WAIT_SECONDS):
        return (await asyncio.get_running_loop().sock_recv(listener, 1000)).decode()


async def test_serve_says_that_it_is_ready_alive_and_stopping(start: Start, systemd: tuple[str, socket.socket]) -> None:
    name, listener = systemd
    server = await start(NOTIFY_SOCKET=name, WATCHDOG_USEC="200000")
    assert [await heard(listener) for _ in range(4)] == ["READY=1"] + ["WATCHDOG=1"] * 3
    server.process.terminate()
    said = "WATCHDOG=1"
    while said == "WATCHDOG=1":
        said = await heard(listener)
    assert said == "STOPPING=1"
    assert await server.process.wait() == 0


@pytest.mark.parametrize(
    "address", ["", "relative", "vsock:2:1234", "/nowhere/at/all", "@image-export-nobody", "/" * 200]
)
def test_without_a_listener_nothing_happens(address: str) -> None:
    notify("READY=1", {"NOTIFY_SOCKET": address})


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_signs_of_life_are_sent_where_systemd_asks_this_process(
    environment: dict[str, str], seconds: float | None
) -> None:
    assert watchdog_seconds(environment) == seconds
