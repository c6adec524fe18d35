"""Kills at random moments under load, and one kill at a crash point of a call."""

import asyncio
import random
import statistics
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from tests.chaos.audit import Books, Report, audited
from tests.chaos.bank import open_bank
from tests.chaos.clients import Client, post, thumbnails_form
from tests.chaos.process import Service
from tests.helpers import picture_bytes, upload

KINDS = ("server", "server", "worker", "group")
CLIENTS = 8
POINT_SECONDS = 60.0

Progress = Callable[[str], None]


def silent(line: str) -> None:
    """No progress."""


async def kills_at_random(directory: Path, kills: int, choose: random.Random, progress: Progress = silent) -> Report:
    """Kill the server, a worker or the process group while clients ask; start it again after each death."""
    async with AsyncExitStack() as stack:
        bank, url = await stack.enter_async_context(open_bank(0.3))
        service = Service(directory / "storage", url)
        stack.push_async_callback(service.stop)
        idle, starts = await service.start(), list[float]()
        client = Client(service, choose)
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(_keep_asking(client))
            for number in range(1, kills + 1):
                await asyncio.sleep(choose.uniform(0.05, 1.2))
                await _kill(service, choose)
                if service.ended:
                    starts.append(await service.start())
                if number % 10 == 0:
                    progress(f"{number} kills, {client.answers} answers, {bank.drawn.total()} pictures drawn")
            asking.cancel()
        books, findings = await audited(service, bank, client.exports)
        return Report(findings.faults, f"{_summary(books)}; {_readiness(idle, starts)}")


async def _kill(service: Service, choose: random.Random) -> None:
    match choose.choice(KINDS):
        case "group":
            await service.kill_group()
        case "worker":
            await service.kill_worker(choose)
        case _:
            await service.kill()


async def _keep_asking(client: Client) -> None:
    numbers = iter(range(1_000_000))

    async def one() -> None:
        while True:
            await client.ask(next(numbers))

    await asyncio.gather(*(one() for _ in range(CLIENTS)))


def _summary(books: Books) -> str:
    states = ", ".join(f"{count} {state}" for state, count in sorted(books.states.items()))
    dollars = books.bank.total / 1e9
    return (
        f"{len(books.requests)} requests, {len(books.calls)} calls ({states}), {len(books.acknowledged)} exports"
        f" acknowledged, bill {dollars:.6f} USD"
    )


def _readiness(idle: float, starts: Sequence[float]) -> str:
    if not starts:
        return "no start after a kill"
    median, worst = (figure / idle for figure in (statistics.median(starts), max(starts)))
    return f"ready after {median:.1f} times an idle start ({idle:.1f} s), {worst:.1f} at most"


async def kill_at_point(directory: Path, point: str) -> Report:
    """Die at a crash point of a request with a key and a base, start again, and look at what became of its call."""
    async with AsyncExitStack() as stack:
        bank, url = await stack.enter_async_context(open_bank(0.8))
        if point.startswith("13"):
            bank.play("rate_limited", then=bank.charge)
        service = Service(directory / "storage", url, point)
        stack.push_async_callback(service.stop)
        await service.start()
        body = thumbnails_form(1, upload(picture_bytes((320, 180))))
        asking = asyncio.create_task(post(service, body, {"Idempotency-Key": "key"}))
        async with asyncio.timeout(POINT_SECONDS):
            await service.wait()
        await asking
        service.point = None
        await service.start()
        books, findings = await audited(service, bank)
        states = list(books.states.elements())
        return Report(findings.faults, ", ".join(states) or "no request", states)
