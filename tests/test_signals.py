"""Stop signals before an event loop handles them: real processes, signalled while they import."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from service.signals import STOP_SIGNALS

ROOT = Path(__file__).parents[1]
COMMANDS = [("serve", 0), ("check", 1), ("export", 1)]


def stopped_at_import(module: str, number: int, command: str, tmp_path: Path, *, ignore: int = 0) -> tuple[int, str]:
    """Send a signal when `module` is imported; returns the exit status and the last lines on stderr."""
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "a.png")
    arguments = [command, *(["a.png"] if command == "export" else [])]
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "service", *arguments], cwd=tmp_path, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "STORAGE_DIR": str(tmp_path / "storage"), "PORT": "0"},
        preexec_fn=(lambda: signal.signal(ignore, signal.SIG_IGN)) if ignore else None,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.rpartition("|")[2].strip() == module:
                break
        process.send_signal(number)
        rest = process.stderr.read()
    return process.returncode, "".join(line for line in rest.splitlines(True) if not line.startswith("import time:"))


@pytest.mark.parametrize("number", STOP_SIGNALS)
@pytest.mark.parametrize(("command", "status"), COMMANDS)
def test_a_signal_amid_the_imports_ends_it_in_silence(
    tmp_path: Path, number: signal.Signals, command: str, status: int
) -> None:
    assert stopped_at_import("click", number, command, tmp_path) == (status, "")


def test_a_signal_that_was_ignored_at_the_start_stays_ignored(tmp_path: Path) -> None:
    status, rest = stopped_at_import("click", signal.SIGHUP, "check", tmp_path, ignore=signal.SIGHUP)
    assert (status, rest) == (0, "")


INTERRUPTED = """
import asyncio, os, signal
from service.signals import exit_on_stop_signals
exit_on_stop_signals(7)
async def work():
    try:
        os.kill(os.getpid(), signal.{name})
        await asyncio.sleep(60)
    finally:
        print("cleaned up", flush=True)
try:
    asyncio.run(work())
except KeyboardInterrupt:
    print("interrupted", flush=True)
os.kill(os.getpid(), signal.{name})
"""


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_to_an_event_loop_without_a_handler_lets_it_clean_up(number: signal.Signals) -> None:
    program = INTERRUPTED.format(name=number.name)
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (answer.returncode, answer.stdout.split("\n"), answer.stderr) == (7, ["cleaned up", "interrupted", ""], "")
