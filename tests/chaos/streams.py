"""Readers of server-sent events that come and go through restarts: each must see every event once."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.chaos.audit import Report, audited
from tests.chaos.bank import open_bank
from tests.chaos.clients import post, thumbnails_form
from tests.chaos.process import Service
from tests.chaos.runs import Progress, silent

REQUESTS = 10
COUNT = 4
READ_SECONDS = 180.0
# Few calls at a time, so that requests are under way through both restarts.
SETTINGS = {"GEMINI_CONCURRENCY": "4"}


@dataclass(slots=True)
class Reader:
    """Follows one request; `events` are the id and text of each, as they came."""

    request_id: str
    choose: random.Random
    events: list[tuple[int, str]] = field(default_factory=list)
    connections: int = 0

    async def follow(self, service: Service) -> None:
        """Until the server says that nothing follows; each connection is dropped after a random time."""
        async with aiohttp.ClientSession() as session:
            while True:
                with suppress(aiohttp.ClientError, OSError, TimeoutError):
                    async with asyncio.timeout(self.choose.uniform(0.2, 3.0)):
                        if await self._read(session, service):
                            return
                await asyncio.sleep(self.choose.uniform(0.0, 0.3))

    async def _read(self, session: aiohttp.ClientSession, service: Service) -> bool:
        """One connection, to its end; returns whether nothing follows any more (204)."""
        headers = {"Last-Event-ID": str(self.events[-1][0])} if self.events else {}
        async with session.get(f"{service.url}/api/thumbnails/{self.request_id}/events", headers=headers) as got:
            self.connections += 1
            if got.status == 204:
                return True
            got.raise_for_status()
            # At the end of the stream, readuntil returns what is left instead.
            while (block := await got.content.readuntil(b"\n\n")).endswith(b"\n\n"):
                if block.startswith(b"id: "):
                    number = int(block.partition(b"\n")[0].removeprefix(b"id: "))
                    self.events.append((number, block.decode()))
            return False

    @property
    def faults(self) -> Counter[str]:
        ids = [number for number, _ in self.events]
        return Counter(
            events_doubled=len(ids) - len(set(ids)),
            events_missed=len(set(range(1, max(ids, default=0) + 1)) - set(ids)),
            events_out_of_order=int(ids != sorted(ids)),
            streams_without_an_end=int(not self.events or "event: done" not in self.events[-1][1]),
        )


async def read_through_restarts(
    directory: Path, readers: int, choose: random.Random, progress: Progress = silent
) -> Report:
    """Follow asynchronous requests through a SIGKILL and a SIGTERM, with a start after each."""
    async with AsyncExitStack() as stack:
        bank, url = await stack.enter_async_context(open_bank(0.5))
        service = Service(directory / "storage", url, settings=SETTINGS)
        stack.push_async_callback(service.stop)
        await service.start()
        ids = [await _begin(service, number) for number in range(REQUESTS)]
        all_readers = [Reader(ids[number % REQUESTS], choose) for number in range(readers)]
        async with asyncio.timeout(READ_SECONDS), asyncio.TaskGroup() as group:
            for reader in all_readers:
                group.create_task(reader.follow(service))
            for end in (service.kill, service.stop):
                await asyncio.sleep(choose.uniform(0.5, 1.5))
                await end()
                await service.start()
                progress(f"started again, {sum(len(each.events) for each in all_readers)} events read")
        _, findings = await audited(service, bank)
        return Report({**findings.faults, **_judge(all_readers)}, _summary(all_readers))


async def _begin(service: Service, number: int) -> str:
    answer = await post(service, thumbnails_form(number, count=COUNT), {"Prefer": "respond-async"})
    if answer is None or answer.status != 202:
        raise RuntimeError(f"a request was not accepted: {answer}")
    return str(answer.json["request_id"])


def _judge(readers: Sequence[Reader]) -> Counter[str]:
    """Each reader's own faults, and events that two readers of a request saw differently."""
    faults: Counter[str] = sum((reader.faults for reader in readers), Counter())
    seen = {(reader.request_id, number, text) for reader in readers for number, text in reader.events}
    unlike = len(seen) - len({(request_id, number) for request_id, number, _ in seen})
    return faults + Counter(events_unlike=unlike)


def _summary(readers: Sequence[Reader]) -> str:
    events, connections = (
        sum(values) for values in zip(*((len(r.events), r.connections) for r in readers), strict=True)
    )
    return f"{len(readers)} readers, {connections} connections, {events} events"
