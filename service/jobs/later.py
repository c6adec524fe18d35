"""Retries of writes that the ledger refused, with exponential backoff."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from service.errors import StorageFull, StorageUnavailable

FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1.0, 30.0

Write = Callable[[], Awaitable[object]]


class LaterWrites:
    """Writes that are retried until the ledger takes them; what it still refuses at `close` is left to recovery."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, write: Write) -> None:
        keep_task(self._tasks, _write_until_done(write))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _write_until_done(write: Write) -> None:
    pause = FIRST_RETRY_SECONDS
    while True:
        await asyncio.sleep(pause)
        try:
            await write()
        except (StorageFull, StorageUnavailable):
            pause = min(2 * pause, LONGEST_RETRY_SECONDS)
        else:
            return


def keep_task(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    """Run `work` as a task that is referenced until it ends: asyncio keeps no strong reference."""
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
