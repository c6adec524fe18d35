"""The order of the queue, without workers, and that the pool serves its jobs in that order."""

import asyncio
from itertools import count
from pathlib import Path

import pytest

from service.imaging.plan import InspectJob, Priority
from service.workers.queue import DEFAULT_PLACE, JobQueue, Place
from service.workers.slot import Slot
from tests.helpers import until
from tests.workers.pools import Pools

HEAVY, SMALL = Place(cost=8.0), Place(cost=0.006)
PAID = Place(Priority.PAID, cost=0.1)


class Queue:
    """A queue in front of one worker; `served` has the names of the jobs in the order in which they got it."""

    def __init__(self) -> None:
        self.jobs: JobQueue[object] = JobQueue()
        self.served: list[str] = []
        self._waiting: dict[asyncio.Future[object], str] = {}

    def put(self, name: str, place: Place, number: int = 1) -> None:
        for _ in range(number):
            self._waiting[self.jobs.put(place)] = name

    def serve(self, number: int) -> list[str]:
        for _ in range(number):
            assert self.jobs.serve(object())
            [waiter] = [waiter for waiter in self._waiting if waiter.done()]
            self.served.append(self._waiting.pop(waiter))
        return self.served[-number:]


@pytest.fixture
async def queue() -> Queue:
    return Queue()


async def test_a_paid_picture_is_next_however_many_wait(queue: Queue) -> None:
    queue.put("heavy", HEAVY, 12)
    queue.put("small", SMALL, 12)
    queue.put("paid", PAID, 2)
    assert queue.serve(2) == ["paid", "paid"]
    assert len(queue.jobs) == 24


async def test_jobs_of_about_the_same_cost_are_served_as_they_came(queue: Queue) -> None:
    for number in range(10):
        queue.put(str(number), Place(cost=1 + number / 20))
    assert queue.serve(10) == [str(number) for number in range(10)]


@pytest.mark.parametrize("served", [0, 1, 5, 11])
async def test_a_small_job_waits_for_few_heavy_ones_whenever_it_comes(queue: Queue, served: int) -> None:
    queue.put("heavy", HEAVY, 12 + served)
    queue.serve(served) if served else None
    queue.put("small", SMALL)
    assert "small" in queue.serve(2)


async def test_many_small_jobs_do_not_starve_a_heavy_one(queue: Queue) -> None:
    queue.put("small", SMALL, 20)
    queue.put("heavy", HEAVY, 2)
    for _ in range(3_000):
        queue.put("small", SMALL)
        queue.serve(1)
    assert queue.served.count("heavy") == 2


async def test_each_class_gets_its_share_of_the_time(queue: Queue) -> None:
    places = {"heavy": Place(cost=8), "middle": Place(cost=1), "small": Place(cost=0.1)}
    for name, place in places.items():
        queue.put(name, place, 2_000)
    queue.serve(1_100)
    seconds = {name: queue.served.count(name) * place.cost for name, place in places.items()}
    assert max(seconds.values()) - min(seconds.values()) <= 8


async def test_a_class_gains_nothing_by_having_been_empty(queue: Queue) -> None:
    queue.put("heavy", HEAVY, 100)
    queue.serve(50)
    queue.put("middle", Place(cost=1), 100)
    assert queue.serve(30).count("heavy") >= 3


async def test_a_job_that_was_removed_is_not_served(queue: Queue) -> None:
    gone = queue.jobs.put(SMALL)
    queue.put("heavy", HEAVY)
    queue.jobs.remove(gone)
    assert len(queue.jobs) == 1
    assert queue.serve(1) == ["heavy"]
    assert not queue.jobs.serve(object())


async def test_costs_of_every_size_make_few_classes(queue: Queue) -> None:
    for exponent in range(-300, 300):
        queue.put("any", Place(cost=10.0**exponent))
    queue.put("nothing", Place(cost=0))
    assert len(queue.jobs._queues[Priority.OTHER]._classes) <= 12


async def test_the_pool_serves_its_queue_in_order(pools: Pools, picture: InspectJob) -> None:
    pool, order = pools(), list[str]()
    numbers = count()

    async def run(name: str, place: Place) -> None:
        await pool.run(picture, str(next(numbers)), place)
        order.append(name)

    places = [("heavy", HEAVY)] * 12 + [("small", SMALL)] + [("paid", PAID)]
    await asyncio.gather(*(run(name, place) for name, place in places))
    assert order.index("paid") <= 1
    assert order.index("small") <= 3
    assert len(order) == 14


async def test_a_caller_cancelled_at_its_turn_passes_the_slot_on(
    pools: Pools, endless: InspectJob, picture: InspectJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pools()
    await pool.start()
    running = asyncio.create_task(pool.run(endless, "a"))
    await until(lambda: pool.busy == 1)
    first, second = (asyncio.create_task(pool.run(picture, "b", DEFAULT_PLACE)) for _ in range(2))
    await until(lambda: pool.waiting == 2)
    # The first job gets the slot in the same iteration of the loop in which it is cancelled.
    release = pool._release

    def release_and_cancel(slot: Slot) -> None:
        release(slot)
        first.cancel()

    monkeypatch.setattr(pool, "_release", release_and_cancel)
    await asyncio.to_thread(_finish, endless.source)
    await second
    assert first.cancelled()
    await running
    assert (pool.busy, pool.waiting) == (0, 0)


def _finish(pipe: str) -> None:
    Path(pipe).write_bytes(b"no picture")
