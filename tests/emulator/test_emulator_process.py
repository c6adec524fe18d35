import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator

import aiohttp
import pytest

COMMAND = (sys.executable, "-m", "service.emulator", "--port", "0")

# A parent that holds the pipe to an emulator; the emulator inherits its output.
PARENT = f"""
import subprocess, sys
subprocess.Popen({COMMAND!r}, stdin=subprocess.PIPE)
sys.stdin.read()
"""


@pytest.fixture
async def emulator() -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(*COMMAND, stdin=PIPE, stdout=PIPE)
    yield process
    if process.returncode is None:
        process.kill()
    await process.wait()


async def port_of(process: Process) -> int:
    assert process.stdout
    return int(json.loads(await process.stdout.readline())["port"])


async def requests_of(port: int) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/emulator/stats") as response:
        return int((await response.json())["requests"])


async def test_it_prints_its_port_and_serves(emulator: Process) -> None:
    assert await requests_of(await port_of(emulator)) == 0


async def test_it_exits_at_the_end_of_its_standard_input(emulator: Process) -> None:
    await port_of(emulator)
    assert emulator.stdin
    emulator.stdin.close()
    assert await asyncio.wait_for(emulator.wait(), 5) == 0


async def test_it_ignores_the_signals_of_its_process_group(emulator: Process) -> None:
    port = await port_of(emulator)
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        emulator.send_signal(one)
    assert await requests_of(port) == 0
    assert emulator.returncode is None


async def test_it_does_not_outlive_a_parent_that_is_killed() -> None:
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, stdin=PIPE, stdout=PIPE)
    assert await requests_of(await port_of(parent)) == 0
    parent.kill()
    assert parent.stdout
    # The emulator holds the other end: it closes when the emulator is gone.
    assert await asyncio.wait_for(parent.stdout.read(), 5) == b""
    await parent.wait()


async def test_it_is_on_loopback_only(emulator: Process) -> None:
    port = await port_of(emulator)
    with open("/proc/net/tcp") as table:
        addresses = {line.split()[1] for line in table}
    assert f"0100007F:{port:04X}" in addresses
    assert f"00000000:{port:04X}" not in addresses


@pytest.mark.parametrize("environment", [{"EMULATOR_FAULTS": "no_such_fault"}, {"EMULATOR_DELAY_SECONDS": "soon"}])
async def test_a_bad_setting_stops_the_start(environment: dict[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(*COMMAND, stdin=PIPE, stderr=PIPE, env={**os.environ, **environment})
    _, said = await process.communicate()
    assert process.returncode == 2
    assert next(iter(environment.values())).encode() in said


async def test_it_does_not_import_the_sdk() -> None:
    code = "import sys, service.emulator.app; sys.exit(any(name.startswith('google') for name in sys.modules))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await process.wait() == 0
