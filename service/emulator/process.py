"""Runs the emulator as a child process, and restarts it with exponential backoff when it dies."""

import asyncio
import contextlib
import json
import logging
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator

from service.errors import SettingsError

log = logging.getLogger(__name__)

# Restarts in a row: a process that ran for STEADY_SECONDS resets the count.
MAX_RESTARTS = 8
FIRST_PAUSE_SECONDS = 0.1
STEADY_SECONDS = 60.0
# How long it may take to exit before it is killed.
EXIT_SECONDS = 5.0


class EmulatorProcess:
    """An emulator on a port that stays the same over restarts. `up`: it is running."""

    def __init__(self, start_seconds: float) -> None:
        self._start_seconds = start_seconds
        self._port = 0
        self.pid = 0
        self.up = False

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator["EmulatorProcess"]:
        """Run the emulator; raises SettingsError if it does not start."""
        async with self._started() as process:
            log.warning("Gemini is not used: the local emulator on %s draws every picture", self.base_url)
            supervisor = asyncio.create_task(self._supervise(process))
            try:
                yield self
            finally:
                supervisor.cancel()
                await asyncio.wait([supervisor])

    async def _supervise(self, process: Process) -> None:
        await self._exit_of(process)
        attempt = 0
        while attempt < MAX_RESTARTS:
            await asyncio.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
            attempt += 1
            try:
                async with self._started() as process:
                    log.warning("the emulator is up again")
                    if await self._exit_of(process) > STEADY_SECONDS:
                        attempt = 0
            except (SettingsError, OSError) as error:
                log.warning("%s", error)
        log.error("the emulator keeps dying: it was restarted %d times and is given up", MAX_RESTARTS)

    async def _exit_of(self, process: Process) -> float:
        """Wait until the process exits; returns how many seconds it ran."""
        started = time.monotonic()
        status = await process.wait()
        self.up = False
        log.warning("the emulator ended with status %d", status)
        return time.monotonic() - started

    @contextlib.asynccontextmanager
    async def _started(self) -> AsyncIterator[Process]:
        """A process that listens; stopped at the end."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "service.emulator", "--port", str(self._port),
            stdin=PIPE, stdout=PIPE, start_new_session=True,
        )  # fmt: skip
        try:
            self._port = await self._port_of(process)
            self.pid, self.up = process.pid, True
            yield process
        finally:
            self.up = False
            await self._stop(process)

    @staticmethod
    async def _stop(process: Process) -> None:
        """Close its standard input, which makes it exit; kill it if it does not."""
        if process.stdin:
            process.stdin.close()
        try:
            async with asyncio.timeout(EXIT_SECONDS):
                await process.wait()
        except TimeoutError:
            log.warning("the emulator did not end within %g seconds: it is killed", EXIT_SECONDS)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _port_of(self, process: Process) -> int:
        try:
            async with asyncio.timeout(self._start_seconds):
                line = await process.stdout.readline() if process.stdout else b""
        except TimeoutError:
            raise SettingsError(f"the emulator did not start within {self._start_seconds:g} seconds") from None
        if not line:
            raise SettingsError("the emulator did not start; the line above says why")
        return int(json.loads(line)["port"])
