"""The parent's side of the workers: slots of one process each, that heal."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from service.imaging.errors import Fault, TooCostly
from service.imaging.plan import Job, Outcome, WorkerLimits
from service.workers.launch import START_FAULTS
from service.workers.line import ANYWHERE, Line, Place
from service.workers.owner import Owner, forked
from service.workers.slot import Backoff, Overrun, Slot
from service.workers.strikes import POISON_DEATHS, Strikes

log = logging.getLogger(__name__)

T = TypeVar("T")

START_ATTEMPTS = 8
START_PAUSE_SECONDS = 0.05
# For a job whose workers are lost again and again without its fault.
MAX_ATTEMPTS = 10


class WorkerPool:
    """Runs jobs in worker processes: as many at once as there are slots, the rest wait in line.

    A worker that dies is replaced at once, and its job is run again; one that takes longer than `cpu_seconds` of its
    worker, or four times that by the clock, is killed with it.
    A slot that loses idle workers in a row gets the next after a pause, longer each time; a job does not wait for that.
    An input that killed three fresh workers is poison for 15 minutes. Workers start at the first job, or by `start`.
    `report` is told of each event: `died`, `late`, `poisoned`, `restarted`.
    """

    def __init__(
        self,
        workers: int,
        limits: WorkerLimits,
        cpu_seconds: float,
        *,
        report: Callable[[str], None] = lambda event: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._owner = Owner()
        self._limits = limits
        self._now = now
        self._renew(workers)
        self._cpu_seconds = cpu_seconds
        self._report = report
        self._strikes = Strikes(now)

    def _renew(self, workers: int) -> None:
        """Make all that belongs to an event loop."""
        self._slots = [Slot(self._limits, self._heal, Backoff(self._now)) for _ in range(workers)]
        # The last one to become free is the next to be used: its memory is warm.
        self._free = list(self._slots)
        self._line: Line[Slot] = Line()
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many jobs are in line."""
        return len(self._line)

    def claim(self) -> None:
        """Use the pool in the running loop, with new workers if its own loop was closed; raises RuntimeError."""
        if self._owner.claim():
            for slot in self._slots:
                slot.kill()
            self._renew(len(self._slots))

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
        """The worker processes, of the slots that are up."""
        return [slot.pid for slot in self._slots if slot.up]

    async def start(self) -> None:
        """Start every worker now rather than at its first job; raises BrokenProcessPool when one cannot be started."""
        self.claim()
        if self._closed:
            raise _closed()
        await asyncio.gather(*(self._done(self._task(self._ready(slot))) for slot in self._slots))

    async def run(self, job: Job, digest: str, place: Place = ANYWHERE) -> Outcome:
        """The job's result, or the ImagingError that says why there is none; `digest` identifies all of its input.

        A cancelled caller leaves the line; a job that a worker already has runs to its end. Raises BrokenProcessPool
        when no worker can be started, and when the pool is closed.
        """
        self.claim()
        if self._strikes.poison(digest):
            return TooCostly("this picture outran or killed its workers before; it is refused for 15 minutes")
        slot = await self._slot(place)
        if self._closed:
            raise _closed()
        return await self._done(self._task(self._serve(slot, job, digest)))

    async def _slot(self, place: Place) -> Slot:
        """Wait in line for a slot; it is given back by `_release`."""
        if self._closed:
            raise _closed()
        waiter = self._line.join(place)
        if self._free:
            self._release(self._free.pop())
        try:
            return await waiter
        except asyncio.CancelledError:
            self._line.leave(waiter)
            # It may have come to its turn in the very moment.
            if not waiter.cancelled() and waiter.exception() is None:
                self._release(waiter.result())
            raise

    def _release(self, slot: Slot) -> None:
        """Give a slot to whoever is next."""
        slot.busy = self._line.serve(slot)
        if not slot.busy:
            self._free.append(slot)
            self._revive_later(slot)

    def _task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _done(self, task: asyncio.Task[T]) -> T:
        """Wait for a task that goes on without us; `close` cancels it, but not whoever waits for it."""
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if self._closed and task.cancelled() and not (waiter and waiter.cancelling()):
                raise _closed() from None
            raise

    async def _serve(self, slot: Slot, job: Job, digest: str) -> Outcome:
        try:
            return await self._attempts(slot, job, digest)
        finally:
            self._release(slot)

    def _heal(self, slot: Slot) -> None:
        """Replace an idle worker that died; the job of a busy one does so itself."""
        if not slot.busy and not self._closed:
            self._lose(slot, "died", None)
            self._revive_later(slot)

    def _revive_later(self, slot: Slot) -> None:
        """See to an idle slot that is down: with all of them down we are not ready, and no job might come."""
        if not slot.up and not self._closed:
            asyncio.get_running_loop().call_later(slot.pauses.next(), self._revive, slot)

    def _revive(self, slot: Slot) -> None:
        if not slot.busy and not self._closed:
            self._task(self._start_idle(slot))

    async def _start_idle(self, slot: Slot) -> None:
        try:
            await slot.ready()
        except START_FAULTS as error:
            self._not_started(error)
            self._revive_later(slot)

    async def _attempts(self, slot: Slot, job: Job, digest: str) -> Outcome:
        blamed: int | None = None
        for _ in range(MAX_ATTEMPTS):
            await self._ready(slot)
            if blamed == slot.forkserver:
                # The fork server lives, so its death is not what killed the last worker.
                self._strikes.add(digest)
            if self._strikes.poison(digest):
                self._report("poisoned")
                return TooCostly(f"the picture killed {POISON_DEATHS} workers; it is refused for 15 minutes")
            fresh, slot.fresh = slot.fresh, False
            try:
                return _logged(await slot.run(job, self._cpu_seconds))
            except Overrun as overrun:
                self._lose(slot, "late", digest)
                self._strikes.add(digest)
                return TooCostly(f"the picture took longer than {overrun}")
            except BrokenProcessPool:
                if self._closed:
                    raise
                blamed = slot.forkserver if fresh and slot.worker_ended() else None
                self._lose(slot, "died", digest)
        raise BrokenProcessPool(f"{MAX_ATTEMPTS} workers were lost, and not by the picture")

    def _lose(self, slot: Slot, event: str, digest: str | None) -> None:
        log.warning("worker %d %s; input %s", slot.pid, event, digest)
        slot.kill()
        self._report(event)

    async def _ready(self, slot: Slot) -> None:
        """Start the slot's worker if need be; a start that fails is tried again, a little later each time."""
        for attempt in range(START_ATTEMPTS):
            try:
                await slot.ready()
            except START_FAULTS as error:
                self._not_started(error)
                await asyncio.sleep(START_PAUSE_SECONDS * 2**attempt)
            else:
                return
        await slot.ready()

    def _not_started(self, error: Exception) -> None:
        log.warning("a worker did not start: %r", error)
        self._report("restarted")

    async def close(self) -> None:
        """End every worker; every caller, in line or with a job, gets BrokenProcessPool."""
        if forked():
            return
        self._closed = True
        if self._owner.gone:
            self._line, self._running = Line(), set()
        self._line.dissolve(_closed())
        for slot in self._slots:
            slot.kill()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await asyncio.gather(*(slot.close() for slot in self._slots))


def _closed() -> BrokenProcessPool:
    return BrokenProcessPool("the pool is closed")


def _logged(outcome: Outcome) -> Outcome:
    """Log a worker's fault in this process, which has the format and knows the request."""
    if isinstance(outcome, Fault):
        log.error("a job met an unexpected fault", exc_info=outcome)
    return outcome
