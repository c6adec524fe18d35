"""A slot of the pool: one worker process at a time, how long a job may take, and the backoff between two workers."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from service.imaging.plan import Job, Outcome, WorkerLimits
from service.workers import entry
from service.workers.launch import Ending, Launch, Started

# Where idle workers die in a row; one that was up for STEADY_SECONDS ends the row.
REVIVE_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 60.0
STEADY_SECONDS = 60.0
# A job that is given this much CPU time may take this many times as long on a busy machine, or asleep.
WALL_FACTOR = 4


class Overrun(Exception):
    """A job took too long; the message says of what."""


class Slot:
    """A ProcessPoolExecutor of one worker; `died` hears of the worker's end at once, unless the slot ended it."""

    def __init__(self, limits: WorkerLimits, died: Callable[["Slot"], None], pauses: "Backoff") -> None:
        self._limits = limits
        self._died = died
        self.pauses = pauses
        self._starting = asyncio.Lock()
        self._launch: Launch | None = None
        self._started: Started | None = None
        self._ending: Ending | None = None
        # Both belong to the worker that is up.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None
        self.pid = 0
        self.fresh = True
        self.busy = False

    @property
    def up(self) -> bool:
        return self._started is not None

    async def ready(self) -> None:
        """Start the worker unless it runs; raises one of START_FAULTS, a start that takes too long among them."""
        async with self._starting:
            if self._started is None:
                self._launch = Launch(self._limits)
                self._started = await self._launch.result()
                self._launch = None
                self.pid, self.fresh = self._started.pid, True
                self._watch(self._started)

    def _watch(self, started: Started) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._loop.add_reader(started.process, self._lost, started)

    def _lost(self, started: Started) -> None:
        self._tell_ended(started)
        self._died(self)

    def _tell_ended(self, started: Started) -> None:
        if self._loop and self._ended and not self._loop.is_closed():
            self._loop.remove_reader(started.process)
            if not self._ended.done():
                self._ended.set_result(None)

    async def run(self, job: Job, seconds: float) -> Outcome:
        """Raises Overrun past `seconds` of CPU or WALL_FACTOR times as many, BrokenProcessPool when the worker died.

        The end of the process is told by its pidfd: the executor hears of it from the fork server, which may hang.
        """
        if self._started is None or self._ended is None:
            raise BrokenProcessPool("the worker is not up")
        limit, ended = _Limit(self.cpu_seconds, seconds), self._ended
        answer = asyncio.wrap_future(self._started.executor.submit(entry.run, job))
        waited: set[asyncio.Future[Any]] = {answer, ended}
        try:
            while not (answer.done() or ended.done()):
                await asyncio.wait(waited, timeout=limit.left(), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise BrokenProcessPool("the worker ended")
            return answer.result()
        finally:
            answer.cancel()

    @property
    def forkserver(self) -> int | None:
        """The process that the worker was forked from; its death breaks the executor of a living worker, too."""
        return self._started.forkserver if self._started else None

    def worker_ended(self) -> bool:
        return self._started is not None and self._started.ended()

    def cpu_seconds(self) -> float:
        """What the worker has used of any core, by its CPU clock; 0 when it is gone."""
        try:
            # clock_getcpuclockid(3) of Linux, which Python has for threads only.
            return time.clock_gettime(~self.pid << 3 | 2)
        except OSError:
            return 0.0

    def kill(self) -> None:
        """End the worker; whoever waits for its answer is told at once."""
        started, self._started = self._started, None
        if started is not None:
            self._tell_ended(started)
            self._ending = started.kill()

    async def close(self) -> None:
        """End the worker, or what may come of a start that was cancelled; takes END_SECONDS a few times at most."""
        self.kill()
        if self._launch:
            await self._launch.over()
        if self._ending:
            await asyncio.to_thread(self._ending.join)


class _Limit:
    """What is left of a job's time: by the CPU clock of its worker, and by the wall clock."""

    def __init__(self, cpu_seconds: Callable[[], float], seconds: float) -> None:
        self._cpu_seconds = cpu_seconds
        self._now = asyncio.get_running_loop().time
        self._seconds = seconds
        self._cpu_end = cpu_seconds() + seconds
        self._wall_end = self._now() + WALL_FACTOR * seconds

    def left(self) -> float:
        """The earliest that a limit can be reached, in seconds from now; raises Overrun when one is."""
        cpu, wall = self._cpu_end - self._cpu_seconds(), self._wall_end - self._now()
        if cpu <= 0:
            raise Overrun(f"{self._seconds:g} seconds of CPU")
        if wall <= 0:
            raise Overrun(f"{WALL_FACTOR * self._seconds:g} seconds by the clock")
        return min(cpu, wall)


class Backoff:
    """How long a slot waits for its next idle worker: not at all, then longer each time, until one was up for long."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._due = now()
        self._seconds = 0.0

    def next(self) -> float:
        """Seconds from now."""
        now = self._now()
        if now - self._due >= STEADY_SECONDS:
            self._seconds = 0.0
        seconds = self._seconds
        self._seconds = min(max(2 * seconds, REVIVE_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        self._due = now + seconds
        return seconds
