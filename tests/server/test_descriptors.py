"""The service as a process with few file descriptors."""

import asyncio
import contextlib
import os
import resource
import secrets
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.handlers.test_forms import head
from tests.helpers import bare_environment, picture_bytes, upload
from tests.server.test_run import ROOT, WAIT_SECONDS, Server, _under_way, _until_ready

FEW = 256


@contextlib.asynccontextmanager
async def serving(storage: Path, *, descriptors: int = FEW, **environment: str) -> AsyncIterator[Server]:
    """A service process started under `ulimit -n`."""
    settings = {"STORAGE_DIR": str(storage), "PORT": "0", "EXPORT_WORKERS": "2"} | environment
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", f'ulimit -n {descriptors} && exec "$0" "$@"', sys.executable, "-m", "service", "serve",
        cwd=ROOT, env=bare_environment(**settings), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    url = await _address(process)
    log: list[str] = []
    reading = asyncio.create_task(_read(process, log))
    timeout = aiohttp.ClientTimeout(total=WAIT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as client:
        server = Server(process, url, client, log)
        try:
            await _until_ready(server)
            yield server
        finally:
            process.kill()
            await process.wait()
            await reading


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr
    async with asyncio.timeout(WAIT_SECONDS):
        async for line in process.stderr:
            if b"serving on " in line:
                return line.split()[-1].decode()
    raise AssertionError("it did not start")


async def _read(process: asyncio.subprocess.Process, log: list[str]) -> None:
    assert process.stderr
    while line := await process.stderr.readline():
        log.append(line.decode())


@contextlib.asynccontextmanager
async def idle_connections(server: Server, count: int) -> AsyncIterator[None]:
    host, _, port = server.url.removeprefix("http://").partition(":")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            _, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
        yield


@contextlib.contextmanager
def limited(server: Server, descriptors: int) -> Iterator[None]:
    """Lower the limit of the running process from outside."""
    pid = server.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def put(storage: Path, count: int) -> list[str]:
    """Store so many exports; returns their links."""
    names = [f"export_{secrets.token_hex(16)}.png" for _ in range(count)]
    for name in names:
        (storage / "output" / name).write_bytes(picture_bytes())
    return [f"/static/output/{name}" for name in names]


async def statuses(server: Server, paths: Sequence[str]) -> list[int]:
    """The statuses of sequential downloads."""
    found = []
    for path in paths:
        async with server.client.get(server.url + path) as answer:
            await answer.read()
            found.append(answer.status)
    return found


async def asked(server: Server, path: str) -> tuple[int, str]:
    async with server.client.get(server.url + path) as answer:
        return answer.status, await answer.text()


async def asked_over_a_new_connection(server: Server, path: str) -> int:
    """Ask over a new connection."""
    async with aiohttp.ClientSession() as client, client.get(server.url + path) as answer:
        return answer.status


async def export(server: Server, client: aiohttp.ClientSession | None = None) -> tuple[int, dict[str, Any]]:
    form = aiohttp.FormData()
    form.add_field("image", picture_bytes(), filename="picture.png")
    async with (client or server.client).post(f"{server.url}/api/exports", data=form) as answer:
        return answer.status, await answer.json(content_type=None)


async def drip(server: Server, bytes_per_second: int) -> None:
    """Send a body slowly, and reconnect at once when it is refused."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(host, int(port))
            refused = asyncio.ensure_future(reader.read(1))
            try:
                writer.write(head("/api/exports", "Content-Length: 9999999") + upload(picture_bytes()).encode()[:-2])
                while not refused.done():
                    writer.write(bytes(bytes_per_second // 10))
                    await asyncio.wait([refused], timeout=0.1)
            finally:
                refused.cancel()
                writer.close()


@pytest.mark.parametrize("bytes_per_second", [10, 12_000])
@pytest.mark.slow
async def test_slow_bodies_that_reconnect_keep_no_connection_from_others(tmp_path: Path, bytes_per_second: int) -> None:
    """More of them than there are descriptors, slower and faster than UPLOAD_MIN_BYTES_PER_SECOND."""
    async with serving(tmp_path, descriptors=128) as server:
        drippers = [asyncio.create_task(drip(server, bytes_per_second)) for _ in range(150)]
        await asyncio.sleep(3)
        found = []
        for _ in range(10):
            async with aiohttp.ClientSession(timeout=server.client.timeout) as client:
                status, body = await export(server, client)
                found.append((status, body.get("detail")))
        for dripper in drippers:
            dripper.cancel()
        await asyncio.wait(drippers)
        assert sum(status == 200 for status, _ in found) >= 9, found
        await _until_ready(server)


@pytest.mark.slow
async def test_connections_cost_no_paid_picture(tmp_path: Path) -> None:
    async with serving(tmp_path, EMULATOR_DELAY_SECONDS="2") as server:
        request = asyncio.create_task(server.ask(count=4))
        await _under_way(server, request)
        async with idle_connections(server, 300):
            status, body = await request
            assert status == 200, body
            assert (len(body["variations"]), body["errors"]) == (4, [])
            assert all(len(variation["exports"]) == 3 for variation in body["variations"])
            assert len(list((tmp_path / "generated").iterdir())) == 4
            assert len(list((tmp_path / "output").iterdir())) == 12
            # New connections are served, in place of idle ones.
            assert await asked_over_a_new_connection(server, "/readyz") == 200
            assert (await server.ask(count=4))[0] == 200
        assert not list((tmp_path / "temp").iterdir())


@pytest.mark.slow
async def test_busy_connections_leave_descriptors_for_work(tmp_path: Path) -> None:
    """Each has a request, so none is idle and may be closed."""
    async with serving(tmp_path, EMULATOR_DELAY_SECONDS="4", UPLOAD_STALL_SECONDS="30") as server:
        request = asyncio.create_task(server.ask(count=4))
        await _under_way(server, request)
        host, _, port = server.url.removeprefix("http://").partition(":")
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(300):
                _, writer = await asyncio.open_connection(host, int(port))
                stack.callback(writer.close)
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
            status, body = await request
            assert status == 200, body
            assert all(len(variation["exports"]) == 3 for variation in body["variations"])
        await _until_ready(server)


@pytest.mark.slow
async def test_many_downloads_leave_descriptors_for_work(tmp_path: Path) -> None:
    async with serving(tmp_path, EMULATOR_DELAY_SECONDS="0") as server:
        paths = put(tmp_path, 260)
        assert set(await statuses(server, paths)) == {200}
        assert set(await statuses(server, paths[::-1])) == {200}
        assert (await export(server))[0] == 200
        assert (await server.ask())[0] == 200
        assert (await asked(server, "/readyz"))[0] == 200


@pytest.mark.slow
async def test_concurrent_downloads_are_answered_or_503(tmp_path: Path) -> None:
    async with serving(tmp_path, EMULATOR_DELAY_SECONDS="0") as server:
        paths = put(tmp_path, 260)
        found = await asyncio.gather(*(asked_binary(server, path) for path in paths))
        assert {200} <= set(found) <= {200, 503}
        assert set(await statuses(server, paths)) == {200}
        assert (await export(server))[0] == 200


async def asked_binary(server: Server, path: str) -> int:
    return (await statuses(server, [path]))[0]


async def test_a_lowered_limit_is_not_ready_until_it_is_raised(tmp_path: Path) -> None:
    async with serving(tmp_path, descriptors=1024, EMULATOR_DELAY_SECONDS="0") as server:
        paths = put(tmp_path, 120)
        assert set(await statuses(server, paths[:100])) == {200}
        with limited(server, 40):
            status, text = await asked(server, "/readyz")
            assert (status, "not_ready" in text, "descriptors" in text) == (503, True, True)
            async with server.client.get(server.url + paths[-1]) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
                assert (await answer.json(content_type=None))["code"] == "storage_unavailable"
            status, body = await export(server)
            assert (status, body["code"], body["billed"]) == (503, "storage_unavailable", False)
            status, body = await server.ask()
            assert (status, body["code"], body["billed"]) == (503, "storage_unavailable", False)
            assert not list((tmp_path / "generated").iterdir())
            late = asyncio.create_task(asked_over_a_new_connection(server, "/healthz"))
            # The cache closes its files.
            async with asyncio.timeout(WAIT_SECONDS):
                while await open_files(server, tmp_path / "output"):
                    await asyncio.sleep(0.1)
            assert (await asked(server, "/healthz"))[0] == 200
        assert await late == 200
        assert (await asked(server, "/readyz"))[0] == 200
        assert set(await statuses(server, paths)) == {200}
        assert (await export(server))[0] == 200
        assert (await server.ask())[0] == 200
        # The log is not flooded.
        assert len(server.log) < 400, server.log
        assert sum("file descriptors are free" in line and "refusing" in line for line in server.log) == 1


@pytest.mark.slow
async def test_a_limit_that_is_lowered_during_a_call_costs_no_paid_picture(tmp_path: Path) -> None:
    async with serving(tmp_path, EMULATOR_DELAY_SECONDS="2") as server:
        request = asyncio.create_task(server.ask(count=4))
        await _under_way(server, request)
        async with asyncio.timeout(WAIT_SECONDS):
            while len(list((tmp_path / "temp").iterdir())) < 4:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        with limited(server, 20):
            async with asyncio.timeout(WAIT_SECONDS):
                while len(list((tmp_path / "generated").iterdir())) < 4:
                    await asyncio.sleep(0.05)
            assert not request.done()
        status, body = await request
        assert status == 200, body
        assert all(len(variation["exports"]) == 3 for variation in body["variations"])


async def open_files(server: Server, folder: Path) -> int:
    descriptors = Path(f"/proc/{server.process.pid}/fd")
    with contextlib.suppress(FileNotFoundError):
        return sum(folder in Path(os.readlink(each)).parents for each in descriptors.iterdir())
    return 1


@pytest.mark.parametrize("descriptors", [128, pytest.param(1024, marks=pytest.mark.slow)])
async def test_a_service_with_fewer_or_more_descriptors_works(tmp_path: Path, descriptors: int) -> None:
    async with (
        serving(tmp_path, descriptors=descriptors, EMULATOR_DELAY_SECONDS="0") as server,
        idle_connections(server, 100),
    ):
        status, body = await server.ask(count=2)
        assert (status, body.get("errors")) == (200, [])
        assert (await export(server))[0] == 200
