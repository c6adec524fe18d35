"""`python -m service serve` as a process that is killed and started again on the same storage."""

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.helpers import KEY, bare_environment, free_port

ROOT = Path(__file__).parents[2]
READY_SECONDS = 60.0
STOP_SECONDS = 60.0


@dataclass(slots=True)
class Service:
    """The service on a storage, calling `gemini`; armed to die at `point`, if there is one. The log is beside it."""

    storage: Path
    gemini: str
    point: str | None = None
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    @property
    def ended(self) -> bool:
        return self.process is None or self.process.returncode is not None

    async def start(self) -> float:
        """Start it; returns the seconds until it was ready."""
        program = ["tests.chaos.armed", self.point] if self.point else ["service"]
        environment = bare_environment(
            STORAGE_DIR=str(self.storage),
            PORT=str(self.port),
            GEMINI_API_KEY=KEY,
            GEMINI_BASE_URL=self.gemini,
            GEMINI_RETRY_SECONDS="5",
            LOG_LEVEL="warning",
            **self.settings,
        )
        self.storage.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with (self.storage.parent / f"service-{self.port}.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *program, "serve", cwd=ROOT, env=environment, stderr=log, start_new_session=True
            )
        await self._until_ready()
        return time.monotonic() - began

    async def _until_ready(self) -> None:
        async with aiohttp.ClientSession() as session, asyncio.timeout(READY_SECONDS):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{self.url}/readyz") as got:
                        if got.status == 200:
                            return
                if self.ended:
                    raise RuntimeError(f"the service ended before it was ready; see {self.storage.parent}")
                await asyncio.sleep(0.02)

    async def wait(self) -> None:
        """Until the process has ended."""
        if self.process:
            await self.process.wait()

    async def kill(self) -> None:
        """SIGKILL the server alone; its workers find out."""
        os.kill(self.pid, signal.SIGKILL)
        await self.wait()

    async def kill_group(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)
        await self.wait()

    async def kill_worker(self, choose: random.Random) -> None:
        """SIGKILL one worker, if there is one; the server lives on."""
        if workers := [pid for pid in _descendants(self.pid) if _is_worker(pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(choose.choice(workers), signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL to one that does not end."""
        if self.process is None or self.ended:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.wait()
        except TimeoutError:
            self.process.kill()
            await self.wait()


def _descendants(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *_descendants(child)]
    return found


def _is_worker(pid: int) -> bool:
    """Whether it is a forked child of the fork server."""
    with contextlib.suppress(OSError):
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return b"forkserver" in Path(f"/proc/{parent}/cmdline").read_bytes()
    return False
