"""Notifications within this process that a request has changed."""

import asyncio
import contextlib
from collections.abc import Iterator

# How often changes by other processes are looked for.
POLL_SECONDS = 1.0


class Changes:
    """Wakes those who wait for a change of a request."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    @contextlib.contextmanager
    def watching(self, request_id: str) -> Iterator[asyncio.Event]:
        """An event that is set when this process changes the request."""
        changed = asyncio.Event()
        self._waiting.setdefault(request_id, set()).add(changed)
        try:
            yield changed
        finally:
            self._waiting[request_id].discard(changed)
            if not self._waiting[request_id]:
                del self._waiting[request_id]

    def wake(self, request_id: str) -> None:
        for changed in self._waiting.get(request_id, ()):
            changed.set()

    def wake_all(self) -> None:
        for request_id in self._waiting:
            self.wake(request_id)


async def wait_for(changed: asyncio.Event, at_most: float = POLL_SECONDS) -> float:
    """Wait for a change in this process, at most POLL_SECONDS; returns the seconds waited."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0.01, min(at_most, POLL_SECONDS))):
            await changed.wait()
    return loop.time() - began
