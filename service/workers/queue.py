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
    """A job's place in the queue.

    cost   in seconds of a worker, estimated
    large  an animation that keeps a worker for long: such jobs never have all of several workers
    """

    priority: Priority = Priority.OTHER
    cost: float = 0.0
    large: bool = False


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
        self._queues[place.priority].put(waiter, place)
        return waiter

    def serve(self, free: T, *, large: bool = True) -> Place | None:
        """Give `free` to the next waiter, and return its place; None if there is none. `large`: to any waiter."""
        for queue in self._queues.values():
            while (entry := queue.get(large=large)) is not None:
                waiter, place = entry
                # Cancelled in this iteration of the loop, and not removed yet.
                if not waiter.done():
                    waiter.set_result(free)
                    return place
        return None

    def remove(self, waiter: asyncio.Future[T]) -> None:
        for queue in self._queues.values():
            queue.remove(waiter)

    def fail_all(self, error: Exception) -> None:
        """Empty the queue: every waiter gets `error`."""
        for queue in self._queues.values():
            for waiter in queue.clear():
                if not waiter.done():
                    waiter.set_exception(error)


# Whether jobs are large, and what they cost, on a logarithmic scale.
_Class = tuple[bool, int]


class _FairQueue(Generic[T]):
    """First in, first out among jobs of about the same cost; between such classes, equal shares of worker time.

    This is start-time fair queueing. Each class has a virtual clock, which advances by the cost of every job served;
    the class whose clock is furthest behind is next, and one that was empty resumes at the current virtual time. So a
    small job waits for few heavy ones, however many there are, and a stream of small ones never starves a heavy one.
    """

    def __init__(self) -> None:
        self._classes: dict[_Class, deque[tuple[asyncio.Future[T], Place]]] = {}
        self._clocks: dict[_Class, float] = {}
        self._now = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._classes.values()))

    def put(self, waiter: asyncio.Future[T], place: Place) -> None:
        key = place.large, _cost_class(place.cost)
        if key not in self._classes:
            self._classes[key] = deque()
            self._clocks[key] = max(self._now, self._clocks.get(key, 0.0))
        self._classes[key].append((waiter, place))

    def get(self, *, large: bool) -> tuple[asyncio.Future[T], Place] | None:
        """The next job, large ones only if `large`; None if there is none."""
        classes = [key for key in self._classes if large or not key[0]]
        if not classes:
            return None
        key = min(classes, key=lambda key: (self._clocks[key], key))
        waiter, place = self._classes[key].popleft()
        self._now = max(self._now, self._clocks[key])
        self._clocks[key] += place.cost
        self._drop_if_empty(key)
        return waiter, place

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

    def _drop_if_empty(self, key: _Class) -> None:
        if not self._classes[key]:
            del self._classes[key]


# Costs within a factor of four share a class; between these bounds there are about ten.
_MIN_COST, _MAX_COST = 1e-3, 1e3


def _cost_class(cost: float) -> int:
    return round(math.log(min(max(cost, _MIN_COST), _MAX_COST), 4))
