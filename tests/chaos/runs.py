"""The two kinds of chaos runs: kills at random moments, and one kill at a crash point."""

import asyncio
import random
import statistics
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.chaos.audit import Findings, audit
from tests.chaos.harness import Bank, Client, Service, bank, calls_of, free_port, settled

KINDS = ("server", "server", "worker", "group")
# Files that were made in the moment of the last kill are removed once they are old enough to be nobody's.
CLEAN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run found, and the states of all calls at its end; `starts`: seconds to ready after each kill."""

    findings: Findings
    states: list[str] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    idle_start: float = 0.0
    answers: int = 0

    def __str__(self) -> str:
        ready = statistics.median(self.starts) / self.idle_start if self.starts and self.idle_start else 0.0
        found = self.findings
        return (
            f"{found.requests} requests, {found.calls} calls, {self.answers} answers, {found.unknown} unknown,"
            f" ready after {ready:.1f} times an idle start"
        )


async def at_random(
    storage: Path, kills: int, choose: random.Random, tell: Callable[[str], None] = lambda line: None
) -> Outcome:
    """Kill at random moments while clients ask, start again, and look at what is left."""
    storage.mkdir(parents=True)
    async with AsyncExitStack() as stack:
        gemini, url = await stack.enter_async_context(bank(0.3))
        service = Service(storage / "storage", url, free_port())
        stack.push_async_callback(service.stop)
        idle = await service.start()
        client, starts = Client(service, choose), []
        asking = asyncio.create_task(_ask(client))
        stack.callback(asking.cancel)
        for number in range(1, kills + 1):
            await asyncio.sleep(choose.uniform(0.05, 1.2))
            await service.kill(choose.choice(KINDS), choose)
            if service.process and service.process.returncode is not None:
                starts.append(await service.start())
            if number % 10 == 0:
                tell(f"  {number} kills, {client.answers} answers, {sum(gemini.calls.values())} pictures drawn")
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        return await _audited(service, gemini, client, starts, idle)


async def _ask(client: Client, at_once: int = 8) -> None:
    numbers = iter(range(1_000_000))

    async def one() -> None:
        while True:
            await client.ask(next(numbers))

    await asyncio.gather(*(one() for _ in range(at_once)))


async def at_point(storage: Path, point: str) -> Outcome:
    """Die at a crash point of a request with a key, start again without a word, and look at what became of it."""
    storage.mkdir(parents=True)
    async with AsyncExitStack() as stack:
        gemini, url = await stack.enter_async_context(bank(0.8))
        if point.startswith("13"):
            gemini.play("rate_limited", then=gemini.charge)
        service = Service(storage / "storage", url, free_port(), point)
        stack.push_async_callback(service.stop)
        await service.start()
        client = Client(service, random.Random(1))
        body_of = asyncio.create_task(_one_request(service))
        async with asyncio.timeout(60):
            await service.dead()
        with suppress(aiohttp.ClientError, OSError):
            await body_of
        service.point = None
        starts = [await service.start()]
        return await _audited(service, gemini, client, starts, 0.0)


async def _one_request(service: Service) -> None:
    headers = {"Idempotency-Key": "key"}
    data = aiohttp.FormData({"script": "script 1", "formats": "jpeg,webp"}, default_to_multipart=True)
    async with aiohttp.ClientSession(headers=headers) as session:
        await session.post(f"{service.url}/api/thumbnails", data=data)


async def _audited(service: Service, gemini: Bank, client: Client, starts: list[float], idle: float) -> Outcome:
    found = await settled(service.url)
    usage = await _get(f"{service.url}/api/usage")
    with suppress(TimeoutError):
        async with asyncio.timeout(CLEAN_SECONDS):
            while any(path.name != ".gitkeep" for path in (service.storage / "temp").iterdir()):
                await asyncio.sleep(0.2)
    findings = audit(service.storage, gemini, found, client.exports, usage)
    states = [call["state"] for call in calls_of(found)]
    return Outcome(findings, states, starts, idle, client.answers)


async def _get(url: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(url) as got:
        return await got.json()
