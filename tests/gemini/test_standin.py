"""The emulator's keeper: a process that dies comes back on its port, and none is ever left."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.gemini import standin
from service.gemini.client import Call, GeminiAccess, open_gemini
from service.gemini.standin import StandIn
from tests.helpers import KEY, alive, until


@pytest.fixture
async def stand_in(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StandIn]:
    monkeypatch.setenv("EMULATOR_DELAY_SECONDS", "0")
    monkeypatch.setattr(standin, "FIRST_PAUSE_SECONDS", 0.01)
    async with StandIn(30).opened() as stand_in:
        yield stand_in
    await until(lambda: not Path(f"/proc/{stand_in.pid}").exists())
    assert not stand_in.up


async def again(stand_in: StandIn) -> None:
    """Kill it and wait for the next one."""
    before = stand_in.pid
    os.kill(before, signal.SIGKILL)
    await until(lambda: stand_in.up and stand_in.pid != before)


async def test_calls_go_on_when_it_dies(stand_in: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    async with open_gemini(GeminiAccess(KEY, stand_in.base_url, retry=30)) as gemini:
        for _ in range(2):
            base_url = stand_in.base_url
            assert (await gemini.draw(Call("gemini-nano-banana-2.1", "a prompt", "1:8", "1K"))).picture
            os.kill(stand_in.pid, signal.SIGKILL)
            await until(lambda: not stand_in.up)
            assert (await gemini.draw(Call("gemini-nano-banana-2.1", "a prompt", "1:8", "1K"))).picture
            assert stand_in.base_url == base_url
    assert caplog.messages.count("the emulator ended with status -9") == 2
    assert caplog.messages.count("the emulator is up again") == 2


async def test_one_that_never_stays_up_is_given_up(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(standin, "RESTARTS", 2)
    await again(stand_in)
    await again(stand_in)
    os.kill(stand_in.pid, signal.SIGKILL)
    await until(lambda: caplog.records[-1].levelno == logging.ERROR)
    assert "was started again 2 times" in caplog.messages[-1]
    assert not stand_in.up


async def test_one_that_was_up_for_long_is_started_again_as_often(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standin, "RESTARTS", 1)
    monkeypatch.setattr(standin, "STEADY_SECONDS", 0)
    for _ in range(3):
        await again(stand_in)


async def test_a_start_that_fails_is_tried_again(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EMULATOR_FAULTS", "no_such_fault")
    os.kill(stand_in.pid, signal.SIGKILL)
    await until(lambda: "the emulator did not start; the line above says why" in caplog.messages)
    monkeypatch.delenv("EMULATOR_FAULTS")
    await until(lambda: stand_in.up)


@pytest.mark.parametrize("seconds", [0, 0.02, 0.2])
async def test_closing_while_it_is_started_again_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(standin, "FIRST_PAUSE_SECONDS", 0)
    before = children()
    async with StandIn(30).opened() as stand_in:
        os.kill(stand_in.pid, signal.SIGKILL)
        await until(lambda: not stand_in.up)
        await asyncio.sleep(seconds)
    assert children() <= before


async def test_one_that_does_not_end_is_killed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(standin, "END_SECONDS", 0.05)
    async with asyncio.timeout(20), StandIn(30).opened() as stand_in:
        await stop(stand_in.pid)
    assert caplog.messages[-1] == "the emulator did not end within 0.05 seconds: it is killed"
    assert not alive(stand_in.pid)


async def test_one_that_does_not_end_is_killed_when_closing_is_cancelled() -> None:
    leave = asyncio.Event()

    async def open_and_leave(stand_in: StandIn) -> None:
        async with stand_in.opened():
            await leave.wait()

    stand_in = StandIn(30)
    closing = asyncio.create_task(open_and_leave(stand_in))
    await until(lambda: stand_in.up)
    await stop(stand_in.pid)
    leave.set()
    await until(lambda: not stand_in.up)
    closing.cancel()
    await asyncio.wait([closing], timeout=20)
    assert not alive(stand_in.pid)


async def stop(pid: int) -> None:
    """Stop a process, and wait until it is: until then it could still end."""
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")


def children() -> set[str]:
    return set(Path("/proc/self/task", str(os.getpid()), "children").read_text().split())
