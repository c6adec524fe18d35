"""The line in front of the workers: paid work first, and small jobs are not held up by heavy ones."""

import asyncio
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.imaging.plan import Priority

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job stands in line; `cost` is an estimate of its worker's seconds."""

    priority: Priority = Priority.OTHER
    cost: float = 0.0


ANYWHERE = Place()


class Line(Generic[T]):
    """Hands out workers, or whatever else `T` is, as they become free. Not more than one loop may use it."""

    def __init__(self) -> None:
        self._queues = {priority: _FairQueue[T]() for priority in Priority}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def join(self, place: Place) -> asyncio.Future[T]:
        """A future for the next free one; whoever waits for it no longer cancels it."""
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queues[place.priority].put(waiter, place.cost)
        return waiter

    def serve(self, free: T) -> bool:
        """Give `free` to whoever is next; False if nobody waits."""
        for queue in self._queues.values():
            while queue:
                waiter = queue.get()
                # Whoever was cancelled in this turn of the loop had no time to leave.
                if not waiter.done():
                    waiter.set_result(free)
                    return True
        return False

    def leave(self, waiter: asyncio.Future[T]) -> None:
        for queue in self._queues.values():
            queue.remove(waiter)

    def dissolve(self, error: Exception) -> None:
        """Everybody who waits gets `error`."""
        for queue in self._queues.values():
            for waiter in queue.clear():
                if not waiter.done():
                    waiter.set_exception(error)


class _FairQueue(Generic[T]):
    """First come, first served among jobs of about the same cost; between such classes, equal shares of worker time.

    This is start-time fair queueing. Each class has a clock that goes on by the cost of what it was given; the class
    whose clock is furthest behind is next, and one that comes back after a break starts at the current time. So a
    small job waits for few heavy ones however many there are, and no stream of small ones starves a heavy one.
    """

    def __init__(self) -> None:
        self._classes: dict[int, deque[tuple[asyncio.Future[T], float]]] = {}
        self._clocks: dict[int, float] = {}
        self._now = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._classes.values()))

    def put(self, waiter: asyncio.Future[T], cost: float) -> None:
        kind = _class_of(cost)
        if kind not in self._classes:
            self._classes[kind] = deque()
            self._clocks[kind] = max(self._now, self._clocks.get(kind, 0.0))
        self._classes[kind].append((waiter, cost))

    def get(self) -> asyncio.Future[T]:
        kind = min(self._classes, key=lambda kind: (self._clocks[kind], kind))
        waiter, cost = self._classes[kind].popleft()
        self._now = self._clocks[kind]
        self._clocks[kind] += cost
        self._drop_empty(kind)
        return waiter

    def remove(self, waiter: asyncio.Future[T]) -> None:
        for kind, queue in self._classes.items():
            for entry in queue:
                if entry[0] is waiter:
                    queue.remove(entry)
                    self._drop_empty(kind)
                    return

    def clear(self) -> Iterator[asyncio.Future[T]]:
        for queue in self._classes.values():
            yield from (waiter for waiter, _ in queue)
        self._classes.clear()

    def _drop_empty(self, kind: int) -> None:
        if not self._classes[kind]:
            del self._classes[kind]


# Jobs within a factor of four are of one class; there are never more than some ten of them.
_CHEAPEST, _DEAREST = 1e-3, 1e3


def _class_of(cost: float) -> int:
    return round(math.log(min(max(cost, _CHEAPEST), _DEAREST), 4))
