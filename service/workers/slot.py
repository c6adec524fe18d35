"""A slot of the pool: one worker process at a time, how long a job may take, and the pauses between two workers."""

import asyncio
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool

from service.imaging.plan import Job, Outcome, WorkerLimits
from service.workers.launch import END_SECONDS, Launch
from service.workers.process import WorkerProcess

# Where idle workers die in a row; one that was up for STEADY_SECONDS ends the row.
REVIVE_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 60.0
STEADY_SECONDS = 60.0
# A job that is given this much CPU time may take this many times as long on a busy machine, or asleep.
WALL_FACTOR = 4


class Overrun(Exception):
    """A job took too long; the message says of what."""


class Slot:
    """Holds one worker process; `died` hears of its end at once, unless the slot ended it."""

    def __init__(self, limits: WorkerLimits, died: Callable[["Slot"], None], pauses: "Backoff") -> None:
        self._limits = limits
        self._died = died
        self.pauses = pauses
        self._starting = asyncio.Lock()
        self._launch: Launch | None = None
        self._process: WorkerProcess | None = None
        self._ending: WorkerProcess | None = None
        self.pid = 0
        self.fresh = True
        self.busy = False

    @property
    def up(self) -> bool:
        return self._process is not None

    async def ready(self) -> None:
        """Start the worker unless it runs; raises one of START_FAULTS, a start that takes too long among them."""
        async with self._starting:
            if self._process is None:
                self._launch = Launch(self._limits)
                self._process = WorkerProcess(await self._launch.result(), lambda: self._died(self))
                self._launch = None
                self.pid, self.fresh = self._process.pid, True

    async def run(self, job: Job, seconds: float) -> Outcome:
        """Raises Overrun past `seconds` of CPU or WALL_FACTOR times as many, BrokenProcessPool when the worker died."""
        process = self._process
        if process is None:
            raise BrokenProcessPool("the worker is not up")
        limit = _Limit(process.cpu_seconds, seconds)
        answer = process.ask(job)
        try:
            while not answer.done():
                await asyncio.wait({answer}, timeout=limit.left())
            return answer.result()
        finally:
            answer.cancel()

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            self._ending = process

    async def close(self) -> None:
        """End the worker, or what may come of a start that was cancelled; takes END_SECONDS a few times at most."""
        self.kill()
        if self._launch:
            await self._launch.over()
        if self._ending:
            await asyncio.wait({asyncio.ensure_future(self._ending.ended.wait())}, timeout=END_SECONDS)


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
