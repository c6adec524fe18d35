"""The order of the queue, without workers, and that the pool serves its jobs in that order."""

import asyncio
import os
from itertools import count
from pathlib import Path

import pytest

from service.imaging.plan import InspectJob, Picture, Priority
from service.workers.queue import DEFAULT_PLACE, JobQueue, Place
from service.workers.slot import Slot
from tests.helpers import until
from tests.workers.pools import Pools

HEAVY, SMALL = Place(cost=8.0), Place(cost=0.006)
PAID = Place(Priority.PAID, cost=0.1)
LARGE = Place(cost=8.0, large=True)


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


async def test_a_slot_that_takes_no_large_jobs_passes_by_them(queue: Queue) -> None:
    queue.put("large", LARGE, 2)
    assert queue.jobs.serve(object(), large=False) is None
    queue.put("small", SMALL)
    assert queue.jobs.serve(object(), large=False) == SMALL
    assert len(queue.jobs) == 2
    assert queue.jobs.serve(object()) == LARGE


@pytest.mark.parametrize("workers", [2, 3])
async def test_large_jobs_leave_one_worker_to_the_others(
    pools: Pools, picture: InspectJob, tmp_path: Path, workers: int
) -> None:
    pool, pipes = pools(workers), [tmp_path / f"pipe {number}" for number in range(workers - 1)]
    for pipe in pipes:
        os.mkfifo(pipe)
    running = [asyncio.create_task(pool.run(InspectJob(str(pipe)), pipe.name, LARGE)) for pipe in pipes]
    await until(lambda: pool.busy == workers - 1)
    next_one = asyncio.create_task(pool.run(picture, "next", LARGE))
    await until(lambda: pool.waiting == 1)
    # However many large jobs run and wait, others have a worker, one after the other.
    for number in range(5):
        assert isinstance(await pool.run(picture, f"small {number}", SMALL), Picture)
    assert (pool.busy, pool.waiting) == (workers - 1, 1)
    for pipe in pipes:
        await asyncio.to_thread(_finish, str(pipe))
    await asyncio.gather(*running)
    assert isinstance(await next_one, Picture)
    assert (pool.busy, pool.waiting) == (0, 0)


async def test_the_next_large_job_follows_the_one_before(
    pools: Pools, endless: InspectJob, picture: InspectJob
) -> None:
    pool = pools(2)
    first = asyncio.create_task(pool.run(endless, "a", LARGE))
    await until(lambda: pool.busy == 1)
    second = asyncio.create_task(pool.run(picture, "b", LARGE))
    await until(lambda: pool.waiting == 1)
    await asyncio.to_thread(_finish, endless.source)
    assert isinstance(await second, Picture)
    await first


async def test_with_one_worker_a_small_job_waits_for_the_running_large_one_only(
    pools: Pools, endless: InspectJob, picture: InspectJob
) -> None:
    pool, order = pools(), list[str]()

    async def run(name: str, job: InspectJob, place: Place) -> None:
        await pool.run(job, name, place)
        order.append(name)

    running = asyncio.create_task(run("running", endless, LARGE))
    await until(lambda: pool.busy == 1)
    waiting = [asyncio.create_task(run("large", picture, LARGE)) for _ in range(4)]
    await until(lambda: pool.waiting == 4)
    small = asyncio.create_task(run("small", picture, SMALL))
    await until(lambda: pool.waiting == 5)
    await asyncio.to_thread(_finish, endless.source)
    await asyncio.gather(running, small, *waiting)
    assert order == ["running", "small", *["large"] * 4]


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
