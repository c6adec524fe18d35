"""A pool of worker processes that supervises them: dead workers are replaced, and jobs that lost theirs run again."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from service.imaging.errors import Fault, TooCostly
from service.imaging.plan import Job, Outcome, WorkerLimits
from service.workers.launch import START_FAULTS
from service.workers.owner import Owner, forked
from service.workers.queue import DEFAULT_PLACE, JobQueue, Place
from service.workers.slot import Backoff, Overrun, Slot
from service.workers.strikes import POISON_DEATHS, Strikes

log = logging.getLogger(__name__)

T = TypeVar("T")

# A start that fails is retried with exponential backoff.
START_ATTEMPTS = 8
START_BACKOFF_SECONDS = 0.05
# A job fails when it has lost this many workers without being to blame.
MAX_ATTEMPTS = 10


class WorkerPool:
    """Runs jobs in worker processes, one per slot at a time; other jobs wait in a fair queue.

    Of two or more workers one is always left to jobs that are not large.

    A job whose worker dies is run again on a fresh one. A job that exceeds the limit of CPU time, or four times that by
    the wall clock, is killed with its worker. An input that killed three fresh workers is poison, and refused for 15
    minutes. Idle workers that die are restarted with exponential backoff, which no job waits for.

    Workers start at the first job, or by `start`. `report` is called with each event: `died`, `late`, `poisoned`,
    `restarted` (a worker did not start, and is tried again).
    """

    def __init__(
        self,
        workers: int,
        limits: WorkerLimits,
        *,
        report: Callable[[str], None] = lambda event: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._owner = Owner()
        self._limits = limits
        self._now = now
        self._reset(workers)
        self._report = report
        self._strikes = Strikes(now)

    def _reset(self, workers: int) -> None:
        """Create everything that is tied to an event loop."""
        self._slots = [Slot(self._limits, self._idle_worker_died, Backoff(self._now)) for _ in range(workers)]
        # Last in, first out: the slot used last has warm memory.
        self._free = list(self._slots)
        self._queue: JobQueue[Slot] = JobQueue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many jobs are in the queue."""
        return len(self._queue)

    @property
    def busy(self) -> int:
        """How many slots have a job."""
        return len(self._slots) - len(self._free)

    @property
    def alive(self) -> bool:
        """Whether any worker is up."""
        return bool(self.pids)

    @property
    def pids(self) -> list[int]:
        """The pids of the workers that are up."""
        return [slot.pid for slot in self._slots if slot.up]

    def claim(self) -> None:
        """Use the pool in the running loop, with new workers if its own loop was closed; raises RuntimeError."""
        if self._owner.claim():
            for slot in self._slots:
                slot.kill()
            self._reset(len(self._slots))

    async def start(self) -> None:
        """Start every worker now rather than at its first job; raises BrokenProcessPool when one cannot be started."""
        self.claim()
        if self._closed:
            raise _closed()
        await asyncio.gather(*(self._wait_for(self._task(self._ensure_started(slot))) for slot in self._slots))

    async def run(self, job: Job, digest: str, place: Place = DEFAULT_PLACE) -> Outcome:
        """The job's result, or the ImagingError that says why there is none; `digest` identifies all of its input.

        A cancelled caller leaves the queue; a job that a worker already has runs to its end. Raises BrokenProcessPool
        when no worker can be started, and when the pool is closed.
        """
        self.claim()
        if self._strikes.is_poison(digest):
            return TooCostly("this picture timed out or killed its workers before; it is refused for 15 minutes")
        slot = await self._free_slot(place)
        if self._closed:
            raise _closed()
        return await self._wait_for(self._task(self._run_and_release(slot, job, digest)))

    async def _free_slot(self, place: Place) -> Slot:
        """Wait in the queue for a slot, which must be given back by `_release`."""
        if self._closed:
            raise _closed()
        waiter = self._queue.put(place)
        if self._free and (self._takes_large or not place.large):
            self._release(self._free.pop())
        try:
            return await waiter
        except asyncio.CancelledError:
            self._queue.remove(waiter)
            # A slot may have been given to it in this iteration of the loop.
            if not waiter.cancelled() and waiter.exception() is None:
                self._release(waiter.result())
            raise

    def _release(self, slot: Slot) -> None:
        """Give a slot to the next job in the queue, or back to the free ones."""
        slot.place = None
        slot.place = self._queue.serve(slot, large=self._takes_large)
        if not slot.busy:
            self._free.append(slot)
            self._restart_later(slot)

    @property
    def _takes_large(self) -> bool:
        """Whether one more worker may have a large job."""
        running = sum(slot.place is not None and slot.place.large for slot in self._slots)
        return running < max(1, len(self._slots) - 1)

    def _task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _wait_for(self, task: asyncio.Task[T]) -> T:
        """Wait for a task that outlives a cancelled caller; if `close` cancels it, raise BrokenProcessPool."""
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if self._closed and task.cancelled() and not (caller and caller.cancelling()):
                raise _closed() from None
            raise

    async def _run_and_release(self, slot: Slot, job: Job, digest: str) -> Outcome:
        try:
            return await self._attempts(slot, job, digest)
        finally:
            self._release(slot)

    def _idle_worker_died(self, slot: Slot) -> None:
        """Replace it, unless the slot has a job: `_attempts` does it then."""
        if not slot.busy and not self._closed:
            self._discard_worker(slot, "died", None)
            self._restart_later(slot)

    def _restart_later(self, slot: Slot) -> None:
        """Restart an idle slot's worker after its backoff, not at the next job: until then `/readyz` may fail."""
        if not slot.up and not self._closed:
            asyncio.get_running_loop().call_later(slot.backoff.next(), self._restart, slot)

    def _restart(self, slot: Slot) -> None:
        if not slot.busy and not self._closed:
            self._task(self._start_idle(slot))

    async def _start_idle(self, slot: Slot) -> None:
        try:
            await slot.ensure_started()
        except START_FAULTS as error:
            self._report_failed_start(error)
            self._restart_later(slot)

    async def _attempts(self, slot: Slot, job: Job, digest: str) -> Outcome:
        """Run a job until it is answered, on a new worker after each one that died."""
        blamed: int | None = None
        for _ in range(MAX_ATTEMPTS):
            await self._ensure_started(slot)
            if blamed == slot.forkserver:
                # The fork server started another worker, so it was not its death that took the last one.
                self._strikes.add(digest)
            if self._strikes.is_poison(digest):
                self._report("poisoned")
                return TooCostly(f"the picture killed {POISON_DEATHS} workers; it is refused for 15 minutes")
            fresh, slot.fresh = slot.fresh, False
            try:
                return _log_fault(await slot.run(job, self._limits.cpu_seconds))
            except Overrun as overrun:
                self._discard_worker(slot, "late", digest)
                self._strikes.add(digest)
                return TooCostly(f"the picture took longer than {overrun}")
            except BrokenProcessPool:
                if self._closed:
                    raise
                blamed = slot.forkserver if fresh and slot.worker_ended() else None
                self._discard_worker(slot, "died", digest)
        raise BrokenProcessPool(f"{MAX_ATTEMPTS} workers died, through no fault of the picture")

    def _discard_worker(self, slot: Slot, event: str, digest: str | None) -> None:
        log.warning("worker %d %s; input %s", slot.pid, event, digest)
        slot.kill()
        self._report(event)

    async def _ensure_started(self, slot: Slot) -> None:
        """Start the slot's worker if need be, with exponential backoff between attempts that fail."""
        for attempt in range(START_ATTEMPTS):
            try:
                await slot.ensure_started()
            except START_FAULTS as error:
                self._report_failed_start(error)
                await asyncio.sleep(START_BACKOFF_SECONDS * 2**attempt)
            else:
                return
        await slot.ensure_started()

    def _report_failed_start(self, error: Exception) -> None:
        log.warning("a worker did not start: %r", error)
        self._report("restarted")

    async def close(self) -> None:
        """End every worker; all callers, waiting or with a job, get BrokenProcessPool.

        In a forked child it does nothing. Raises RuntimeError while another event loop uses the pool.
        """
        if forked():
            return
        if self._owner.claim():
            # Nothing that waits in a loop that is closed can be woken.
            self._queue, self._tasks = JobQueue(), set()
        self._closed = True
        self._queue.fail_all(_closed())
        for slot in self._slots:
            slot.kill()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(slot.close() for slot in self._slots))


def _closed() -> BrokenProcessPool:
    return BrokenProcessPool("the pool is closed")


def _log_fault(outcome: Outcome) -> Outcome:
    """Log an unexpected fault of a worker here, where the log format and the request id are known."""
    if isinstance(outcome, Fault):
        log.error("a job met an unexpected fault", exc_info=outcome)
    return outcome
