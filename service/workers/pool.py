"""The parent's side of the workers: slots of one process each, that heal."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from service.imaging.errors import Fault, TooCostly
from service.imaging.plan import Job, Outcome, WorkerLimits
from service.workers.owner import Owner, forked
from service.workers.slot import START_FAULTS, Backoff, Slot

log = logging.getLogger(__name__)

T = TypeVar("T")

POISON_DEATHS = 3
POISON_SECONDS = 15 * 60
POISON_REMEMBERED = 1_000
START_ATTEMPTS = 8
START_PAUSE_SECONDS = 0.05


class WorkerPool:
    """Runs jobs in worker processes: as many at once as there are slots, the rest wait in line.

    A worker that dies is replaced at once, and its job is run again; one past its deadline is killed with its worker.
    A slot that loses idle workers in a row gets the next after a pause, longer each time; a job does not wait for that.
    An input that killed three fresh workers is poison for 15 minutes. Workers start at the first job, or by `start`.
    `report` is told of each event: `died`, `late`, `poisoned`, `restarted`.
    """

    def __init__(
        self,
        workers: int,
        limits: WorkerLimits,
        deadline_seconds: float,
        *,
        report: Callable[[str], None] = lambda event: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._owner = Owner()
        self._limits = limits
        self._now = now
        self._renew(workers)
        self._deadline = deadline_seconds
        self._report = report
        self._strikes = _Strikes(now)

    def _renew(self, workers: int) -> None:
        """Make all that belongs to an event loop."""
        self._slots = [Slot(self._limits, self._heal, Backoff(self._now)) for _ in range(workers)]
        self._free: asyncio.LifoQueue[Slot] = asyncio.LifoQueue()
        for slot in self._slots:
            self._free.put_nowait(slot)
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False
        self.waiting = 0

    def claim(self) -> None:
        """Use the pool in the running loop, with new workers if its own loop was closed; raises RuntimeError."""
        if self._owner.claim():
            for slot in self._slots:
                slot.kill()
            self._renew(len(self._slots))

    @property
    def busy(self) -> int:
        """How many slots have a job."""
        return len(self._slots) - self._free.qsize()

    @property
    def alive(self) -> bool:
        """Whether any worker is up."""
        return bool(self.pids)

    @property
    def pids(self) -> list[int]:
        """The worker processes, of the slots that are up."""
        return [slot.pid for slot in self._slots if slot.up]

    async def start(self) -> None:
        """Start every worker now rather than at its first job."""
        self.claim()
        await asyncio.gather(*(self._ready(slot) for slot in self._slots))

    async def run(self, job: Job, digest: str) -> Outcome:
        """The job's result, or the ImagingError that says why there is none; `digest` identifies its input.

        A cancelled caller leaves the line; a job that a worker already has runs to its end.
        """
        self.claim()
        if self._strikes.poison(digest):
            return TooCostly("this picture outran or killed its workers before; it is refused for 15 minutes")
        self.waiting += 1
        try:
            slot = await self._free.get()
        finally:
            self.waiting -= 1
        slot.busy = True
        return await asyncio.shield(self._task(self._serve(slot, job, digest)))

    def _task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _serve(self, slot: Slot, job: Job, digest: str) -> Outcome:
        try:
            return await self._attempts(slot, job, digest)
        finally:
            slot.busy = False
            self._free.put_nowait(slot)
            self._revive_later(slot)

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
        while not self._strikes.poison(digest):
            await self._ready(slot)
            fresh, slot.fresh = slot.fresh, False
            try:
                return _logged(await slot.run(job, self._deadline))
            except TimeoutError:
                self._lose(slot, "late", digest)
                return TooCostly(f"the picture took longer than {self._deadline:g} seconds to export")
            except BrokenProcessPool:
                if self._closed:
                    raise
                self._lose(slot, "died", digest if fresh else None)
        self._report("poisoned")
        return TooCostly(f"the picture killed {POISON_DEATHS} workers; it is refused for 15 minutes")

    def _lose(self, slot: Slot, event: str, digest: str | None) -> None:
        log.warning("worker %d %s; input sha256 %s", slot.pid, event, digest)
        slot.kill()
        self._report(event)
        if digest is not None:
            self._strikes.add(digest)

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
        """End every worker; one that still has a job is killed, and its caller gets BrokenProcessPool."""
        if forked():
            return
        self._closed = True
        for slot in self._slots:
            if self._running:
                slot.kill()
        await asyncio.gather(*self._running, return_exceptions=True)
        await asyncio.gather(*(slot.close() for slot in self._slots))


def _logged(outcome: Outcome) -> Outcome:
    """Log a worker's fault in this process, which has the format and knows the request."""
    if isinstance(outcome, Fault):
        log.error("a job met an unexpected fault", exc_info=outcome)
    return outcome


class _Strikes:
    """How often an input has killed its worker lately; at most POISON_REMEMBERED inputs."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def add(self, digest: str) -> None:
        self._seen[digest] = (self._count(digest) + 1, self._now())
        self._seen.move_to_end(digest)
        if len(self._seen) > POISON_REMEMBERED:
            self._seen.popitem(last=False)

    def poison(self, digest: str) -> bool:
        return self._count(digest) >= POISON_DEATHS

    def _count(self, digest: str) -> int:
        count, since = self._seen.get(digest, (0, 0.0))
        return count if self._now() - since < POISON_SECONDS else 0
