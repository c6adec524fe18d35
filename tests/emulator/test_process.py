"""The supervisor of the emulator: restarts on the same port, and no process is left."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.emulator import process as process
from service.emulator.process import EmulatorProcess
from service.gemini.call import Call
from service.gemini.client import GeminiAccess, open_gemini
from tests.helpers import KEY, alive, free_port, until


@pytest.fixture
async def emulator_process(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EmulatorProcess]:
    monkeypatch.setenv("EMULATOR_DELAY_SECONDS", "0")
    monkeypatch.setattr(process, "FIRST_PAUSE_SECONDS", 0.01)
    emulator_process = EmulatorProcess(30)
    # No other process may take its port while it is down.
    emulator_process._port = free_port()
    async with emulator_process.opened():
        yield emulator_process
    await until(lambda: not Path(f"/proc/{emulator_process.pid}").exists())
    assert not emulator_process.up


async def again(emulator_process: EmulatorProcess) -> None:
    """Kill the process and wait for its restart."""
    before = emulator_process.pid
    os.kill(before, signal.SIGKILL)
    await until(lambda: emulator_process.up and emulator_process.pid != before)


async def test_calls_are_retried_when_it_dies(
    emulator_process: EmulatorProcess, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_gemini(GeminiAccess(KEY, emulator_process.base_url, retry=30)) as gemini:
        for _ in range(2):
            base_url = emulator_process.base_url
            assert (await gemini.generate_image(Call("gemini-nano-banana-2.1", "a prompt", "1:8", "1K"))).picture
            os.kill(emulator_process.pid, signal.SIGKILL)
            await until(lambda: not emulator_process.up)
            assert (await gemini.generate_image(Call("gemini-nano-banana-2.1", "a prompt", "1:8", "1K"))).picture
            assert emulator_process.base_url == base_url
    assert caplog.messages.count("the emulator ended with status -9") == 2
    assert caplog.messages.count("the emulator is up again") == 2


async def test_the_number_of_restarts_is_bounded(
    emulator_process: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "MAX_RESTARTS", 2)
    await again(emulator_process)
    await again(emulator_process)
    os.kill(emulator_process.pid, signal.SIGKILL)
    await until(lambda: caplog.records[-1].levelno == logging.ERROR)
    assert "it was restarted 2 times" in caplog.messages[-1]
    assert not emulator_process.up


async def test_a_long_run_resets_the_number_of_restarts(
    emulator_process: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "MAX_RESTARTS", 1)
    monkeypatch.setattr(process, "STEADY_SECONDS", 0)
    for _ in range(3):
        await again(emulator_process)


async def test_a_failed_restart_is_retried(
    emulator_process: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EMULATOR_FAULTS", "no_such_fault")
    os.kill(emulator_process.pid, signal.SIGKILL)
    await until(lambda: "the emulator did not start; the line above says why" in caplog.messages)
    monkeypatch.delenv("EMULATOR_FAULTS")
    await until(lambda: emulator_process.up)


@pytest.mark.parametrize("seconds", [0, 0.02, 0.2])
async def test_closing_during_a_restart_leaves_no_process(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(process, "FIRST_PAUSE_SECONDS", 0)
    before = children()
    async with EmulatorProcess(30).opened() as emulator_process:
        os.kill(emulator_process.pid, signal.SIGKILL)
        await until(lambda: not emulator_process.up)
        await asyncio.sleep(seconds)
    assert children() <= before


async def test_a_process_that_does_not_exit_is_killed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "EXIT_SECONDS", 0.05)
    async with asyncio.timeout(20), EmulatorProcess(30).opened() as emulator_process:
        await stop(emulator_process.pid)
    assert caplog.messages[-1] == "the emulator did not end within 0.05 seconds: it is killed"
    assert not alive(emulator_process.pid)


async def test_a_process_that_does_not_exit_is_killed_when_closing_is_cancelled() -> None:
    leave = asyncio.Event()

    async def open_and_leave(emulator_process: EmulatorProcess) -> None:
        async with emulator_process.opened():
            await leave.wait()

    emulator_process = EmulatorProcess(30)
    closing = asyncio.create_task(open_and_leave(emulator_process))
    await until(lambda: emulator_process.up)
    await stop(emulator_process.pid)
    leave.set()
    await until(lambda: not emulator_process.up)
    closing.cancel()
    await asyncio.wait([closing], timeout=20)
    assert not alive(emulator_process.pid)


async def stop(pid: int) -> None:
    """Stop a process with SIGSTOP, and wait until it is stopped: until then it could still exit."""
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")


def children() -> set[str]:
    return set(Path("/proc/self/task", str(os.getpid()), "children").read_text().split())
