"""Signals to a `generate` process: after the first it waits for calls that may cost money, the second ends it."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from service.server.connections import listening
from tests.helpers import KEY, QuickEmulator, bare_environment, until

ROOT = Path(__file__).parents[1]
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WAIT_SECONDS = 60.0

Process = asyncio.subprocess.Process
Generate = Callable[..., Awaitable[Process]]


@pytest.fixture
async def generate(tmp_path: Path) -> AsyncIterator[Generate]:
    """Starts `generate` of two variations, one after the other, and waits until the first call is out.

    `ignoring`: a signal that it starts with ignored, as under nohup.
    """
    made = str(tmp_path / "made")
    arguments = ("My script", "--count", "2", "--formats", "webp", "--out", made)
    environment = bare_environment(STORAGE_DIR=str(tmp_path / "storage"), EXPORT_WORKERS="1", GEMINI_CONCURRENCY="1")
    async with AsyncExitStack() as stack:

        async def begin(emulator: QuickEmulator, ignoring: signal.Signals | None = None) -> Process:
            [(host, port)] = await stack.enter_async_context(listening(emulator.create_app(), "127.0.0.1", 0))
            gemini = {"GEMINI_BASE_URL": f"http://{host}:{port}", "GEMINI_API_KEY": KEY}
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "service", "generate", *arguments, cwd=ROOT, env={**environment, **gemini},
                start_new_session=True, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                preexec_fn=None if ignoring is None else lambda: signal.signal(ignoring, signal.SIG_IGN),
            )  # fmt: skip
            stack.push_async_callback(killed, process)
            await until(lambda: emulator.in_flight, WAIT_SECONDS)
            return process

        yield begin


async def killed(process: Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()


async def ended(process: Process) -> tuple[int | None, list[str], str]:
    """Exit status, names of the files written, and stderr."""
    async with asyncio.timeout(WAIT_SECONDS):
        out, err = await process.communicate()
    return process.returncode, [Path(line).name for line in out.decode().split()], err.decode()


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
async def test_after_the_first_signal_nothing_is_sent_and_sent_calls_are_awaited(
    generate: Generate, tmp_path: Path, number: signal.Signals
) -> None:
    emulator = QuickEmulator(delay_seconds=1)
    process = await generate(emulator)
    process.send_signal(number)
    status, names, words = await ended(process)
    assert (status, names) == (3, ["var-1.webp"]), words
    assert "waiting for the calls that are out" in words
    assert "1 of 2 variations were not sent" in words
    assert emulator.requests == 1
    assert not list((tmp_path / "storage/temp").iterdir())


@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGHUP), (signal.SIGHUP, signal.SIGINT)],
)
@pytest.mark.slow
async def test_the_second_signal_of_any_kind_ends_at_once(
    generate: Generate, tmp_path: Path, first: signal.Signals, second: signal.Signals
) -> None:
    emulator = QuickEmulator(then="hang")
    process = await generate(emulator)
    process.send_signal(first)
    assert process.stderr
    async with asyncio.timeout(WAIT_SECONDS):
        await process.stderr.readuntil(b"waiting for the calls that are out")
    process.send_signal(second)
    status, names, words = await ended(process)
    assert (status, names) == (1, [])
    assert words.splitlines()[-1] == "Aborted!"
    assert "Traceback" not in words
    assert emulator.requests == 1
    assert not list((tmp_path / "storage/temp").iterdir())


@pytest.mark.parametrize("number", STOP_SIGNALS)
@pytest.mark.slow
async def test_a_signal_that_was_ignored_at_the_start_stays_ignored(generate: Generate, number: signal.Signals) -> None:
    process = await generate(QuickEmulator(delay_seconds=0.5), ignoring=number)
    for _ in range(3):
        process.send_signal(number)
    status, names, words = await ended(process)
    assert (status, len(names)) == (0, 2), words
    assert "waiting" not in words


@pytest.mark.parametrize("fault", ["unavailable", "rate_limited_bare"])
@pytest.mark.slow
async def test_a_call_that_comes_back_refused_after_the_first_signal_is_not_sent_again(
    generate: Generate, fault: str
) -> None:
    emulator = QuickEmulator(then=fault, delay_seconds=1)
    process = await generate(emulator)
    process.terminate()
    status, names, words = await ended(process)
    assert (status, names) == (1, [])
    assert "var-1: cancelled: the call was refused, and is not sent again" in words
    assert emulator.requests == 1
