"""The queue in front of the workers: paid work first, and fair queueing between small and heavy jobs."""

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
    """A job's place in the queue: its priority, and its estimated cost in seconds of a worker."""

    priority: Priority = Priority.OTHER
    cost: float = 0.0


DEFAULT_PLACE = Place()


class JobQueue(Generic[T]):
    """Hands out free slots (`T`) to the jobs that wait; for one event loop."""

    def __init__(self) -> None:
        self._queues = {priority: _FairQueue[T]() for priority in Priority}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def put(self, place: Place) -> asyncio.Future[T]:
        """Join the queue; returns a future for a free slot. Cancel it, or `remove` it, to leave."""
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queues[place.priority].put(waiter, place.cost)
        return waiter

    def serve(self, free: T) -> bool:
        """Give `free` to the next waiter; False if there is none."""
        for queue in self._queues.values():
            while queue:
                waiter = queue.get()
                # Cancelled in this iteration of the loop, and not removed yet.
                if not waiter.done():
                    waiter.set_result(free)
                    return True
        return False

    def remove(self, waiter: asyncio.Future[T]) -> None:
        for queue in self._queues.values():
            queue.remove(waiter)

    def fail_all(self, error: Exception) -> None:
        """Empty the queue: every waiter gets `error`."""
        for queue in self._queues.values():
            for waiter in queue.clear():
                if not waiter.done():
                    waiter.set_exception(error)


class _FairQueue(Generic[T]):
    """First in, first out among jobs of about the same cost; between such classes, equal shares of worker time.

    This is start-time fair queueing. Each class has a virtual clock, which advances by the cost of every job served;
    the class whose clock is furthest behind is next, and one that was empty resumes at the current virtual time. So a
    small job waits for few heavy ones, however many there are, and a stream of small ones never starves a heavy one.
    """

    def __init__(self) -> None:
        self._classes: dict[int, deque[tuple[asyncio.Future[T], float]]] = {}
        self._clocks: dict[int, float] = {}
        self._now = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._classes.values()))

    def put(self, waiter: asyncio.Future[T], cost: float) -> None:
        key = _cost_class(cost)
        if key not in self._classes:
            self._classes[key] = deque()
            self._clocks[key] = max(self._now, self._clocks.get(key, 0.0))
        self._classes[key].append((waiter, cost))

    def get(self) -> asyncio.Future[T]:
        key = min(self._classes, key=lambda key: (self._clocks[key], key))
        waiter, cost = self._classes[key].popleft()
        self._now = self._clocks[key]
        self._clocks[key] += cost
        self._drop_if_empty(key)
        return waiter

    def remove(self, waiter: asyncio.Future[T]) -> None:
        for key, queue in self._classes.items():
            for entry in queue:
                if entry[0] is waiter:
                    queue.remove(entry)
                    self._drop_if_empty(key)
                    return

    def clear(self) -> Iterator[asyncio.Future[T]]:
        for queue in self._classes.values():
            yield from (waiter for waiter, _ in queue)
        self._classes.clear()

    def _drop_if_empty(self, key: int) -> None:
        if not self._classes[key]:
            del self._classes[key]


# Costs within a factor of four share a class; between these bounds there are about ten.
_MIN_COST, _MAX_COST = 1e-3, 1e3


def _cost_class(cost: float) -> int:
    return round(math.log(min(max(cost, _MIN_COST), _MAX_COST), 4))
