"""Minimum throughput: the rule by numbers, and downloads that are read too slowly."""

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from service.server.keys import ADMISSION
from service.server.throughput import MinimumThroughput
from service.settings import MIB
from tests.conftest import Serve
from tests.handlers.test_downloads import put, request_for
from tests.helpers import Running, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize(
    ("moved", "elapsed", "left"),
    [
        (0, 0, 30), (1, 0, 30), (0, 30, 0), (0, 20, 10), (102_400, 30, 10), (102_400, 40, 0), (102_400, 50, -10),
        (10_240_000, 100, 30),
    ],
)  # fmt: skip
async def test_the_average_begins_after_the_stall_seconds(moved: int, elapsed: float, left: float) -> None:
    assert MinimumThroughput(30, 10_240).seconds_left(moved, elapsed) == left


async def test_without_an_average_only_the_stall_counts() -> None:
    assert MinimumThroughput(30, 0).seconds_left(1, 1e6) == 30


def download(service: Running) -> bytes:
    return request_for(Path(service.settings.area("output"), put(service, data=bytes(8 * MIB))))


async def test_a_client_that_reads_too_slowly_is_dropped_though_it_never_stops(serve: Serve) -> None:
    """It reads about 3 MB a second, and the minimum is 100 MB."""
    service = await serve(download_stall_seconds=0.3, download_min_bytes_per_second=100 * MIB)
    async with service.connected() as (reader, writer):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 1024)
        writer.write(download(service))
        with contextlib.suppress(ConnectionError):
            while await reader.read(64 * 1024):
                await asyncio.sleep(0.02)
    await until(lambda: service.app[ADMISSION].inside["download"] == 0)


@pytest.mark.parametrize("least", [0, 200_000])
async def test_a_client_that_reads_slowly_but_enough_is_served(serve: Serve, least: int) -> None:
    service = await serve(download_stall_seconds=0.3, download_min_bytes_per_second=least)
    async with service.connected() as (reader, writer):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 1024)
        writer.write(download(service))
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(100):
            await reader.readexactly(32 * 1024)
            await asyncio.sleep(0.02)
        await reader.readexactly(8 * MIB - 100 * 32 * 1024)
