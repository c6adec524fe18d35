"""A slot of the pool: an executor of one worker process, which a fork server starts, and its pauses between two."""

import asyncio
import contextlib
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import ForkServerContext, ForkServerProcess
from types import ModuleType
from typing import Any

from service.imaging.plan import Job, Outcome, WorkerLimits
from service.workers import worker

# Where idle workers die in a row; one that was up for STEADY_SECONDS ends the row.
REVIVE_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 60.0
STEADY_SECONDS = 60.0
START_FAULTS = (BrokenProcessPool, OSError, EOFError)

_main_lock = threading.Lock()


@contextlib.contextmanager
def _hidden_main() -> Iterator[None]:
    """Multiprocessing makes a child import the parent's `__main__`; a script without a guard would run twice."""
    with _main_lock:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


class _BareProcess(ForkServerProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802  # multiprocessing's own name for the hook
        with _hidden_main():
            return ForkServerProcess._Popen(process_obj)


class _BareContext(ForkServerContext):
    Process = _BareProcess


def _start_forkserver() -> None:
    """Start the fork server with Pillow loaded, and with signals blocked: one to the group must spare the workers."""
    multiprocessing.forkserver.set_forkserver_preload(["service.workers.worker"])
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        # The fork server would start the tracker, whose start unblocks SIGINT and SIGTERM in Python 3.11. The tracker
        # itself ignores these two.
        multiprocessing.resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Slot:
    """One executor of one worker process; `died` hears of its end at once, unless the slot ended it."""

    def __init__(self, limits: WorkerLimits, died: Callable[["Slot"], None], pauses: "Backoff") -> None:
        self._limits = limits
        self._died = died
        self.pauses = pauses
        self._starting = asyncio.Lock()
        self._executor: ProcessPoolExecutor | None = None
        # The process itself: long after a worker died, its number may be another's.
        self._process = -1
        self.pid = 0
        self.fresh = True
        self.busy = False

    @property
    def up(self) -> bool:
        return self._executor is not None

    async def ready(self) -> None:
        """Start the worker unless it runs; raises BrokenProcessPool when it dies at once."""
        async with self._starting:
            if self._executor is None:
                self._executor, self.pid, self._process = await asyncio.to_thread(self._start)
                self.fresh = True
                asyncio.get_running_loop().add_reader(self._process, self._ended)

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process)
        self._died(self)

    def _start(self) -> tuple[ProcessPoolExecutor, int, int]:
        _start_forkserver()
        executor = ProcessPoolExecutor(1, _BareContext(), worker.start, (self._limits,))
        try:
            pid = executor.submit(os.getpid).result()
            return executor, pid, os.pidfd_open(pid)
        except (BrokenProcessPool, OSError):
            executor.shutdown(wait=False)
            raise

    async def run(self, job: Job, seconds: float) -> Outcome:
        """Raises TimeoutError past the deadline, BrokenProcessPool when the worker died."""
        if self._executor is None:
            raise BrokenProcessPool("the worker is not up")
        future = asyncio.wrap_future(self._executor.submit(worker.run, job))
        async with asyncio.timeout(seconds):
            return await future

    def kill(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
            self._forget()
            executor.shutdown(wait=False, cancel_futures=True)

    def _forget(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process)
        os.close(self._process)

    async def close(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            self._forget()
            await asyncio.to_thread(executor.shutdown)


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
