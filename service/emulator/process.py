"""The emulator as a process of its own, which is started again when it dies."""

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

# In a row: one that was up for STEADY_SECONDS has all of them again.
RESTARTS = 8
FIRST_PAUSE_SECONDS = 0.1
STEADY_SECONDS = 60.0
# It ends at once, unless it hangs or is stopped.
END_SECONDS = 5.0


class EmulatorProcess:
    """An emulator that keeps its port. Each process ends with its standard input, so none can outlive this one."""

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
        """Raises SettingsError when it does not start."""
        async with self._life() as process:
            log.warning("no Gemini here: the local emulator on %s draws every picture", self.base_url)
            keeper = asyncio.create_task(self._keep_up(process))
            try:
                yield self
            finally:
                keeper.cancel()
                await asyncio.wait([keeper])

    async def _keep_up(self, process: Process) -> None:
        await self._death(process)
        attempt = 0
        while attempt < RESTARTS:
            await asyncio.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
            attempt += 1
            try:
                async with self._life() as process:
                    log.warning("the emulator is up again")
                    if await self._death(process) > STEADY_SECONDS:
                        attempt = 0
            except (SettingsError, OSError) as error:
                log.warning("%s", error)
        log.error("the emulator does not stay up: it was started again %d times", RESTARTS)

    async def _death(self, process: Process) -> float:
        """Wait for it; returns how many seconds the process was up."""
        begun = time.monotonic()
        status = await process.wait()
        self.up = False
        log.warning("the emulator ended with status %d", status)
        return time.monotonic() - begun

    @contextlib.asynccontextmanager
    async def _life(self) -> AsyncIterator[Process]:
        """One process, from when it listens; it is gone at the end."""
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
            await self._end(process)

    @staticmethod
    async def _end(process: Process) -> None:
        """Close its standard input; what does not end with that is killed."""
        if process.stdin:
            process.stdin.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                await process.wait()
        except TimeoutError:
            log.warning("the emulator did not end within %g seconds: it is killed", END_SECONDS)
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
