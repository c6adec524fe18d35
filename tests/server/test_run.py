"""The service as a process: signals, graceful shutdown, killed processes, the log."""

import asyncio
import fcntl
import io
import json
import os
import re
import signal
import socket
import sys
import termios
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image

from service.server.run import _address_to_open
from service.settings import Settings
from service.signals import STOP_SIGNALS
from tests.helpers import alive, bare_environment, free_port

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 60.0


@dataclass
class Server:
    """A service process in a process group of its own."""

    process: asyncio.subprocess.Process
    url: str
    client: Any
    log: list[str] = field(default_factory=list)

    async def ask(self, count: int = 1) -> tuple[int, dict[str, Any]]:
        form = aiohttp.FormData({"script": "A test", "count": str(count)}, default_to_multipart=True)
        async with self.client.post(f"{self.url}/api/thumbnails", data=form) as answer:
            return answer.status, await answer.json(content_type=None)

    async def inside(self) -> float:
        """How many requests are past the admission, by the service's own count."""
        return await self.gauge("requests_inside")

    async def gauge(self, name: str) -> float:
        async with self.client.get(f"{self.url}/metrics") as answer:
            for line in (await answer.text()).splitlines():
                if line.startswith(f"image_export_{name} "):
                    return float(line.split()[1])
        raise AssertionError("no such metric")

    def family(self) -> set[int]:
        """Every process that the service started, emulator and workers included."""
        found: set[int] = set()
        new = {self.process.pid}
        parents = {int(entry.name): _parent(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
        while new := {pid for pid, parent in parents.items() if parent in new}:
            found |= new
        return found


def _parent(process: Path) -> int | None:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


Start = Callable[..., Any]


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "storage"


@pytest.fixture
async def start(storage: Path) -> AsyncIterator[Start]:
    servers: list[Server] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WAIT_SECONDS)) as client:

        async def begin(**environment: Any) -> Server:
            port = free_port()
            process = await _spawn(storage, PORT=str(port), **environment)
            server = Server(process, f"http://127.0.0.1:{port}", client)
            servers.append(server)
            await _until_ready(server)
            return server

        yield begin
        for server in servers:
            if server.process.returncode is None:
                server.process.kill()
            await server.process.wait()


def _default_signals() -> None:
    """Undo that a shell ignores some signals for its background jobs."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)


async def _spawn(
    storage: Path,
    *arguments: str,
    stderr: int = asyncio.subprocess.PIPE,
    preexec_fn: Callable[[], Any] = _default_signals,
    **environment: Any,
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", "serve", *arguments,
        cwd=ROOT, env=bare_environment(STORAGE_DIR=str(storage), **environment), start_new_session=True,
        stdout=asyncio.subprocess.PIPE, stderr=stderr, preexec_fn=preexec_fn,
    )  # fmt: skip


async def _until_ready(server: Server) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            try:
                async with server.client.get(f"{server.url}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                if server.process.returncode is not None:
                    raise
            await asyncio.sleep(0.05)


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.02)


async def _under_way(server: Server, request: "asyncio.Task[Any]") -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while await server.inside() < 1:
            assert not request.done()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "whole_group"),
    [
        (signal.SIGINT, True),
        pytest.param(signal.SIGHUP, True, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, True, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, False, marks=pytest.mark.slow),
    ],
)
async def test_a_signal_during_a_request_answers_it_and_exits_0(
    start: Start, number: signal.Signals, whole_group: bool
) -> None:
    server = await start(EMULATOR_DELAY_SECONDS="1")
    request = asyncio.create_task(server.ask(count=2))
    await _under_way(server, request)
    family = server.family()
    if whole_group:
        os.killpg(server.process.pid, number)
    else:
        server.process.send_signal(number)
    _assert_both_came(*await request)
    _, errors = await server.process.communicate()
    assert server.process.returncode == 0
    assert b"resource_tracker" not in errors
    await _until(lambda: not any(map(alive, family)))


def _assert_both_came(status: int, body: dict[str, Any]) -> None:
    assert status == 200
    assert len(body["variations"]) == 2
    assert all(len(variation["exports"]) == 3 for variation in body["variations"])


@pytest.mark.slow
async def test_a_closed_terminal_counts_as_one_signal(start: Start) -> None:
    terminal, inner = os.openpty()
    server = await start(
        EMULATOR_DELAY_SECONDS="1.5", stderr=inner, preexec_fn=lambda: fcntl.ioctl(inner, termios.TIOCSCTTY)
    )
    os.close(inner)
    request = asyncio.create_task(server.ask(count=2))
    await _under_way(server, request)
    # The kernel signals the session leader; the shell, and its exit, signal the process group again.
    os.close(terminal)
    for _ in range(2):
        await asyncio.sleep(0.2)
        os.killpg(server.process.pid, signal.SIGHUP)
    _assert_both_came(*await request)
    assert await server.process.wait() == 0


@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGHUP, signal.SIGHUP), (signal.SIGHUP, signal.SIGTERM), (signal.SIGTERM, signal.SIGHUP),
     (signal.SIGINT, signal.SIGTERM)],
)  # fmt: skip
@pytest.mark.slow
async def test_a_second_signal_of_any_kind_ends_the_wait(
    start: Start, first: signal.Signals, second: signal.Signals
) -> None:
    server = await start(EMULATOR_DELAY_SECONDS="300")
    request = asyncio.create_task(server.ask())
    await _under_way(server, request)
    server.process.send_signal(first)
    async with asyncio.timeout(WAIT_SECONDS):
        while (await server.client.get(f"{server.url}/readyz")).status != 503:
            await asyncio.sleep(0.02)
    server.process.send_signal(second)
    async with asyncio.timeout(WAIT_SECONDS):
        assert await server.process.wait() == 0
    with pytest.raises(aiohttp.ClientError):
        await request


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGTERM])
async def test_a_signal_that_was_ignored_at_the_start_stays_ignored(start: Start, ignored: signal.Signals) -> None:
    def ignore() -> None:
        _default_signals()
        signal.signal(ignored, signal.SIG_IGN)

    server = await start(preexec_fn=ignore)
    for _ in range(2):
        os.killpg(server.process.pid, ignored)
    await asyncio.sleep(0.2)
    async with server.client.get(f"{server.url}/readyz") as answer:
        assert answer.status == 200
    server.process.send_signal(signal.SIGINT)
    assert await server.process.wait() == 0


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
async def test_a_signal_while_the_emulator_starts_gives_the_start_up(storage: Path, number: signal.Signals) -> None:
    process = await _spawn(storage, PORT="0")
    server = Server(process, "", None)
    await _until(lambda: any(map(_is_emulator, server.family())))
    family = server.family()
    os.killpg(process.pid, number)
    async with asyncio.timeout(WAIT_SECONDS):
        _, errors = await process.communicate()
    assert process.returncode == 0, errors
    assert b"Traceback" not in errors
    assert b"serving on" not in errors
    await _until(lambda: not any(map(alive, family)))


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, "{url}"),
        pytest.param({"PUBLIC_URL": "http://pictures.example"}, "http://pictures.example", marks=pytest.mark.slow),
    ],
)
async def test_on_a_terminal_the_last_line_is_the_address_to_open(
    start: Start, environment: dict[str, str], address: str
) -> None:
    terminal, inner = os.openpty()
    server = await start(stderr=inner, **environment)
    os.close(inner)
    shown = b""
    async with asyncio.timeout(WAIT_SECONDS):
        while b"Ctrl-C" not in shown:
            shown += await asyncio.to_thread(os.read, terminal, 65536)
    # Without the access log of this test's own requests for /readyz.
    *_, last = (line for line in shown.decode().splitlines() if " GET " not in line)
    assert last.endswith(f"open {address.format(url=server.url)} in a browser; Ctrl-C stops the service")
    server.process.send_signal(signal.SIGINT)
    assert await server.process.wait() == 0
    os.close(terminal)


@pytest.mark.parametrize(
    ("host", "url"), [("0.0.0.0", "http://127.0.0.1:80"), ("::", "http://[::1]:80"), ("10.0.0.1", "http://10.0.0.1:80")]
)
def test_a_wildcard_address_is_shown_as_one_that_opens(host: str, url: str) -> None:
    assert _address_to_open(Settings(), [(host, 80)]) == url


async def test_while_draining_new_requests_are_refused(start: Start) -> None:
    server = await start(EMULATOR_DELAY_SECONDS="3")
    request = asyncio.create_task(server.ask())
    await _under_way(server, request)
    server.process.terminate()
    async with asyncio.timeout(WAIT_SECONDS):
        while (await server.client.get(f"{server.url}/readyz")).status != 503:
            await asyncio.sleep(0.02)
    status, body = await server.ask()
    assert (status, body["code"], body["billed"]) == (503, "draining", False)
    assert (await request)[0] == 200
    assert await server.process.wait() == 0


@pytest.mark.slow
async def test_bodies_that_never_end_do_not_hold_up_the_end(start: Start) -> None:
    server = await start()
    port = int(server.url.rpartition(":")[2])
    head = b"POST /api/exports HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
    for _, writer in pairs:
        writer.write(head + b"Content-Length: 40000000\r\n\r\n--x\r\n")
    # All their bodies are being read.
    async with asyncio.timeout(WAIT_SECONDS):
        while await server.gauge("bodies_being_read") < 20:
            await asyncio.sleep(0.02)
    server.process.terminate()
    for reader, writer in pairs:
        answer = await asyncio.wait_for(reader.read(), WAIT_SECONDS)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b'"code":"draining"' in answer
        writer.close()
    assert await server.process.wait() == 0


async def test_an_idle_service_stops_with_no_process_left(start: Start) -> None:
    server = await start()
    family = server.family()
    assert len(family) >= 4
    server.process.send_signal(signal.SIGINT)
    assert await server.process.wait() == 0
    await _until(lambda: not any(map(alive, family)))


async def test_after_sigkill_no_worker_and_no_emulator_is_left(start: Start) -> None:
    server = await start(EMULATOR_DELAY_SECONDS="30")
    request = asyncio.create_task(server.ask())
    await _under_way(server, request)
    family = server.family()
    server.process.kill()
    await server.process.wait()
    async with asyncio.timeout(5):
        while any(map(alive, family)):
            await asyncio.sleep(0.02)
    with pytest.raises(aiohttp.ClientError):
        await request


@pytest.mark.slow
async def test_a_worker_killed_during_a_request_costs_no_export(start: Start, storage: Path) -> None:
    server = await start(EMULATOR_DELAY_SECONDS="0.5", EXPORT_WORKERS="2")
    request = asyncio.create_task(server.ask(count=4))
    await _until(lambda: any((storage / "temp").iterdir()))
    for pid in filter(_is_worker, server.family()):
        os.kill(pid, signal.SIGKILL)
    for answer in (await request, await server.ask()):
        assert answer[0] == 200
        assert all(len(variation["exports"]) == 3 for variation in answer[1]["variations"])
    assert (await server.client.get(f"{server.url}/readyz")).status == 200


@pytest.mark.slow
async def test_an_emulator_that_dies_is_started_again(start: Start) -> None:
    server = await start(EMULATOR_DELAY_SECONDS="0")
    [emulator] = filter(_is_emulator, server.family())
    os.kill(emulator, signal.SIGKILL)
    await _until(lambda: not Path(f"/proc/{emulator}").exists())
    status, body = await server.ask()
    assert status == 200, body
    await _until_ready(server)
    [another] = filter(_is_emulator, server.family())
    assert another != emulator
    server.process.send_signal(signal.SIGINT)
    assert await server.process.wait() == 0
    await _until(lambda: not alive(another))


@pytest.mark.slow
async def test_without_its_emulator_the_service_is_not_ready(start: Start) -> None:
    server = await start(EMULATOR_DELAY_SECONDS="0")
    [emulator] = filter(_is_emulator, server.family())
    os.kill(emulator, signal.SIGKILL)
    async with asyncio.timeout(WAIT_SECONDS):
        while (answer := await server.client.get(f"{server.url}/readyz")).status != 503:
            await asyncio.sleep(0)
    assert "emulator: not running" in await answer.text()
    await _until_ready(server)


def _is_emulator(pid: int) -> bool:
    return alive(pid) and b"service.emulator" in Path(f"/proc/{pid}/cmdline").read_bytes()


def _is_worker(pid: int) -> bool:
    """A worker's parent is the fork server, whose command line is the same."""
    if not alive(pid):
        return False
    parent = _parent(Path(f"/proc/{pid}"))
    return b"forkserver" in Path(f"/proc/{parent}/cmdline").read_bytes()


async def test_the_first_request_of_the_readme_runs_as_printed(start: Start) -> None:
    server = await start(EMULATOR_DELAY_SECONDS="0")
    [command, *_] = re.findall(r"^\$ (curl .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    command = command.replace("curl", "curl --silent --fail", 1).replace("http://127.0.0.1:8000", server.url)
    curl = await asyncio.create_subprocess_shell(command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    answer, _ = await curl.communicate()
    assert curl.returncode == 0
    _assert_both_came(200, json.loads(answer))


@pytest.mark.slow
async def test_signed_links_work_and_end(start: Start) -> None:
    server = await start(SIGN_URLS="true", SIGNING_SECRET="s" * 32, EMULATOR_DELAY_SECONDS="0")
    _, body = await server.ask()
    for export in body["variations"][0]["exports"].values():
        async with server.client.get(server.url + export["url"]) as answer:
            assert (answer.status, answer.content_type) == (200, export["content_type"])
            assert Image.open(io.BytesIO(await answer.read())).size == (1280, 720)
        async with server.client.get(f"{server.url}/static/{export['file_path']}") as answer:
            assert answer.status == 404


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"JPEG_QUALITY": "101"}, "JPEG_QUALITY='101'"),
        ({"HOST": "0.0.0.0"}, "API_KEYS"),
        ({"GEMINI_BASE_URL": "http://127.0.0.1:9"}, "GEMINI_API_KEY"),
        ({"SIGN_URLS": "true", "SIGNING_SECRET": "short"}, "SIGNING_SECRET"),
        ({"TEMP_DIR": "/dev/null/x"}, "TEMP_DIR"),
    ],
)
async def test_a_bad_setting_is_one_line_and_no_start(tmp_path: Path, environment: dict[str, Any], named: str) -> None:
    process = await _spawn(tmp_path, **environment)
    _, errors = await process.communicate()
    lines = errors.decode().splitlines()
    assert process.returncode == 2
    assert len(lines) == 1
    assert named in lines[0]
    assert "short" not in lines[0]


async def test_a_port_in_use_is_a_one_line_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = await _spawn(tmp_path, "--port", str(taken.getsockname()[1]))
        _, errors = await process.communicate()
    assert process.returncode == 1
    assert "in use" in errors.decode().splitlines()[-1]
    assert b"Traceback" not in errors


async def test_an_emulator_that_cannot_start_says_why(tmp_path: Path) -> None:
    process = await _spawn(tmp_path, EMULATOR_DELAY_SECONDS="soon")
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert [line[:6] for line in errors.decode().splitlines()] == ["error:", "error:"]
    assert b"EMULATOR_DELAY_SECONDS" in errors


@pytest.mark.slow
async def test_every_answer_is_in_the_log_when_the_service_has_stopped(start: Start) -> None:
    server = await start()
    for number in range(100):
        async with server.client.get(f"{server.url}/{number}") as answer:
            assert answer.status == 404
    server.process.terminate()
    _, errors = await server.process.communicate()
    lines = errors.decode().splitlines()
    answers = [line.split("'")[1] for line in lines if " 404 " in line]
    assert answers == [f"/{number}" for number in range(100)]
    assert lines[-1].endswith("stopped")


@pytest.mark.slow
async def test_a_log_pipe_that_nobody_reads_blocks_nothing(start: Start) -> None:
    server = await start()
    server.process._transport.get_pipe_transport(2).close()
    for _ in range(100):
        async with server.client.get(f"{server.url}/healthz") as answer:
            assert answer.status == 200
        await asyncio.sleep(0.005)
    server.process.terminate()
    async with asyncio.timeout(WAIT_SECONDS):
        assert await server.process.wait() == 0
