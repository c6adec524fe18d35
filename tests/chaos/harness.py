"""What chaos runs are made of: a Gemini that counts its bill, a service that is killed, and what is left of both."""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from service.emulator.responders import PendingRequest, one_picture
from service.gemini.costs import RATES
from service.server.connections import listening
from tests.helpers import KEY, QuickEmulator, alive, form, picture_bytes, upload

ROOT = Path(__file__).parents[2]
MODEL = "gemini-nano-banana-2.1"
READY_SECONDS = 60.0
CLIENT_SECONDS = 60.0


class Bank(QuickEmulator):
    """Draws swatches, and counts each picture that left for a caller as one that was billed."""

    def __init__(self, delay_seconds: float = 0.0) -> None:
        super().__init__(delay_seconds, then=self.charge)
        self.calls: Counter[str] = Counter()

    async def charge(self, pending: PendingRequest) -> Any:
        self.calls[pending.received.prompt] += 1
        return await one_picture(pending)


@dataclass(slots=True)
class Acknowledged:
    """An export that a client was told of."""

    path: str
    sha256: str


@dataclass(slots=True)
class Service:
    """`python -m service serve` on a storage of its own, started again after each death."""

    storage: Path
    gemini: str
    port: int
    point: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    async def start(self) -> float:
        """Start it and wait until it is ready; returns the seconds that took."""
        program = ["tests.chaos.armed", self.point] if self.point else ["service"]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("GEMINI_", "GOOGLE_"))},
            "STORAGE_DIR": str(self.storage),
            "PORT": str(self.port),
            "GEMINI_API_KEY": KEY,
            "GEMINI_BASE_URL": self.gemini,
            "GEMINI_RETRY_SECONDS": "5",
            "LOG_LEVEL": "warning",
            **self.environment,
        }
        began = time.monotonic()
        with (self.storage.parent / "service.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *program, "serve", cwd=ROOT, env=environment, stderr=log, start_new_session=True
            )
        async with aiohttp.ClientSession() as session, asyncio.timeout(READY_SECONDS):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{self.url}/readyz") as got:
                        if got.status == 200:
                            return time.monotonic() - began
                if self.process.returncode is not None:
                    raise RuntimeError(f"the service ended with {self.process.returncode}; see service.log")
                await asyncio.sleep(0.02)

    async def dead(self) -> None:
        """Wait until the process and its children have ended."""
        if self.process:
            await self.process.wait()

    async def kill(self, what: str, choose: random.Random) -> None:
        """SIGKILL the server, one of its workers, or its whole process group; a worker's death is not the server's."""
        if what == "group":
            os.killpg(self.pid, signal.SIGKILL)
        elif what == "server":
            os.kill(self.pid, signal.SIGKILL)
        else:
            workers = [pid for pid in _descendants(self.pid) if _is_worker(pid)]
            if workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(choose.choice(workers), signal.SIGKILL)
            return
        await self.dead()

    async def stop(self) -> None:
        if self.process and self.process.returncode is None:
            self.process.terminate()
            try:
                async with asyncio.timeout(30):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()


def _descendants(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *_descendants(child)]
    return found


def _is_worker(pid: int) -> bool:
    """A forked child of the fork server."""
    with contextlib.suppress(OSError):
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return b"forkserver" in Path(f"/proc/{parent}/cmdline").read_bytes()
    return False


@dataclass(slots=True)
class Client:
    """Asks for thumbnails again and again, and notes what it was told."""

    service: Service
    choose: random.Random
    exports: list[Acknowledged] = field(default_factory=list)
    answers: int = 0
    broken: int = 0

    async def ask(self, number: int) -> None:
        """One request, of one of the kinds: plain, with a key (repeated until it is answered), or not waited for."""
        kind = self.choose.choice(("plain", "keyed", "async"))
        headers = {} if kind == "plain" else {"Idempotency-Key": f"key-{number}"}
        if kind == "async":
            headers["Prefer"] = "respond-async"
        fields = [("script", f"script {number}"), ("count", str(self.choose.randint(1, 3))), ("formats", "jpeg,webp")]
        base = [upload(picture_bytes((320, 180)))] if self.choose.random() < 0.3 else []
        body = form(*fields, *base)
        for _ in range(20 if kind != "plain" else 1):
            if await self._sent(body, headers):
                return
            await asyncio.sleep(0.2)

    async def _sent(self, body: bytes, headers: dict[str, str]) -> bool:
        headers = {"Content-Type": "multipart/form-data; boundary=----the-boundary", **headers}
        limit = aiohttp.ClientTimeout(total=CLIENT_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.post(f"{self.service.url}/api/thumbnails", data=body, headers=headers) as got,
            ):
                answer = await got.json(content_type=None)
        except (aiohttp.ClientError, OSError, TimeoutError, json.JSONDecodeError):
            self.broken += 1
            return False
        self.answers += 1
        if got.status == 200:
            for variation in answer["variations"]:
                for export in variation["exports"].values():
                    self.exports.append(Acknowledged(export["file_path"], export["sha256"]))
        return got.status < 500 or got.status == 502


async def statuses(url: str) -> list[dict[str, Any]]:
    """Every request that the service knows, page by page."""
    found: list[dict[str, Any]] = []
    async with aiohttp.ClientSession() as session:
        while True:
            before = f"&before={found[-1]['request_id']}" if found else ""
            async with session.get(f"{url}/api/thumbnails?limit=100{before}") as got:
                page = (await got.json())["requests"]
            found += page
            if not page:
                return found


async def settled(url: str, seconds: float = 60.0) -> list[dict[str, Any]]:
    """The requests once none is at work any more."""
    async with asyncio.timeout(seconds):
        while True:
            found = await statuses(url)
            if all(each["state"] != "running" for each in found):
                return found
            await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def bank(delay_seconds: float) -> AsyncIterator[tuple[Bank, str]]:
    opened = Bank(delay_seconds)
    async with listening(opened.create_app(), "127.0.0.1", 0) as [(host, port)]:
        yield opened, f"http://{host}:{port}"


def free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def calls_of(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [call for request in found for call in request["calls"]]


__all__ = [
    "MODEL",
    "RATES",
    "Bank",
    "Client",
    "Service",
    "alive",
    "bank",
    "calls_of",
    "free_port",
    "settled",
    "statuses",
]
