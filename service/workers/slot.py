"""A slot of the pool: supervises one worker process, limits the time of its job, and backs off between restarts."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from service.imaging.plan import Job, Outcome, WorkerLimits
from service.workers import entry
from service.workers.launch import Launch, RunningWorker, Shutdown
from service.workers.queue import Place

# Exponential backoff between restarts, while idle workers die in a row; a worker that lived for STEADY_SECONDS ends it.
FIRST_BACKOFF_SECONDS = 0.05
MAX_BACKOFF_SECONDS = 60.0
STEADY_SECONDS = 60.0
# A job may take this many times its CPU limit by the wall clock, for a busy machine or a slow disk.
WALL_FACTOR = 4
# The CPU clock is read no more often than this, however little is left.
MIN_CHECK_SECONDS = 0.05


class Overrun(Exception):
    """A job reached its time limit; the message names the limit."""


class Slot:
    """A ProcessPoolExecutor of one worker, started on demand; `on_death` is called when it dies unexpectedly."""

    def __init__(self, limits: WorkerLimits, on_death: Callable[["Slot"], None], backoff: "Backoff") -> None:
        self._limits = limits
        self._on_death = on_death
        self.backoff = backoff
        self._starting = asyncio.Lock()
        self._launch: Launch | None = None
        self._worker: RunningWorker | None = None
        self._shutdown: Shutdown | None = None
        # The loop that watches the worker's pidfd, and the future that is done when the worker has ended.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None
        self.pid = 0
        # Whether the worker has not had a job yet.
        self.fresh = True
        # Of the job that it has.
        self.place: Place | None = None

    @property
    def busy(self) -> bool:
        return self.place is not None

    @property
    def up(self) -> bool:
        return self._worker is not None

    @property
    def forkserver(self) -> int | None:
        """The pid of the worker's fork server, whose death breaks the executor of a living worker too."""
        return self._worker.forkserver if self._worker else None

    def worker_ended(self) -> bool:
        return self._worker is not None and self._worker.ended()

    async def ensure_started(self) -> None:
        """Start the worker unless it is up; raises one of START_FAULTS, also when the start takes too long."""
        async with self._starting:
            if self._worker is None:
                self._launch = Launch(self._limits)
                self._worker = await self._launch.result()
                self._launch = None
                self.pid, self.fresh = self._worker.pid, True
                self._watch(self._worker)

    def _watch(self, started: RunningWorker) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._loop.add_reader(started.pidfd, self._found_dead, started)

    def _found_dead(self, started: RunningWorker) -> None:
        self._unwatch(started)
        self._on_death(self)

    def _unwatch(self, started: RunningWorker) -> None:
        """Stop watching the pidfd, and wake the job that waits for the worker."""
        if self._loop and self._ended and not self._loop.is_closed():
            self._loop.remove_reader(started.pidfd)
            if not self._ended.done():
                self._ended.set_result(None)

    async def run(self, job: Job, cpu_seconds: float) -> Outcome:
        """Run a job on the worker that is up; it is not cancelled with the caller.

        Raises Overrun past `cpu_seconds` of CPU or WALL_FACTOR times as many of wall time, and BrokenProcessPool when
        the worker dies. A death is noticed by the pidfd: the executor learns of it from the fork server, which may
        hang.
        """
        if self._worker is None or self._ended is None:
            raise BrokenProcessPool("the worker is not up")
        limit, ended = _TimeLimit(self.cpu_seconds, cpu_seconds), self._ended
        result = asyncio.wrap_future(self._worker.executor.submit(entry.run, job))
        waited: set[asyncio.Future[Any]] = {result, ended}
        try:
            while not (result.done() or ended.done()):
                await asyncio.wait(waited, timeout=limit.remaining(), return_when=asyncio.FIRST_COMPLETED)
            if not result.done():
                raise BrokenProcessPool("the worker ended")
            return result.result()
        finally:
            result.cancel()

    def cpu_seconds(self) -> float:
        """CPU time that the worker has used; 0 when it is gone."""
        try:
            # As clock_getcpuclockid(3) of Linux computes it: Python has that for threads only.
            return time.clock_gettime(~self.pid << 3 | 2)
        except OSError:
            return 0.0

    def kill(self) -> None:
        """Kill the worker; a job that it has raises BrokenProcessPool at once."""
        running, self._worker = self._worker, None
        if running is not None:
            self._unwatch(running)
            self._shutdown = running.kill()

    async def close(self) -> None:
        """Kill the worker, or one that is being started, and wait for its end: a few END_SECONDS at most."""
        self.kill()
        if self._launch:
            await self._launch.end()
        if self._shutdown:
            await asyncio.to_thread(self._shutdown.join)


class _TimeLimit:
    """A job's time limits: CPU time, read from its worker's CPU clock, and wall time."""

    def __init__(self, cpu_seconds: Callable[[], float], seconds: float) -> None:
        self._cpu_seconds = cpu_seconds
        self._now = asyncio.get_running_loop().time
        self._seconds = seconds
        self._cpu_end = cpu_seconds() + seconds
        self._wall_end = self._now() + WALL_FACTOR * seconds

    def remaining(self) -> float:
        """Seconds from now until a limit can have been reached; raises Overrun when one has been."""
        cpu, wall = self._cpu_end - self._cpu_seconds(), self._wall_end - self._now()
        if cpu <= 0:
            raise Overrun(f"{self._seconds:g} seconds of CPU")
        if wall <= 0:
            raise Overrun(f"{WALL_FACTOR * self._seconds:g} seconds by the clock")
        return min(max(cpu, MIN_CHECK_SECONDS), wall)


class Backoff:
    """Exponential backoff between restarts of an idle worker, reset once one has lived for STEADY_SECONDS."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._restarted = now()
        self._seconds = 0.0

    def next(self) -> float:
        """How many seconds to wait before the next restart: 0 for the first one."""
        now = self._now()
        if now - self._restarted >= STEADY_SECONDS:
            self._seconds = 0.0
        seconds = self._seconds
        self._seconds = min(max(2 * seconds, FIRST_BACKOFF_SECONDS), MAX_BACKOFF_SECONDS)
        self._restarted = now + seconds
        return seconds
