"""The start of a worker process by multiprocessing's fork server, either of which may hang."""

import asyncio
import contextlib
import gc
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from types import ModuleType
from typing import Any

from service.imaging.plan import WorkerLimits
from service.workers import worker

# A start takes a tenth of a second; on a machine so busy that it takes this long, nothing else works either.
START_SECONDS = 30.0
# For a killed process to be gone, and for a start that is no longer wanted.
END_SECONDS = 5.0
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


def forkserver_pid() -> int | None:
    server: Any = multiprocessing.forkserver._forkserver
    pid: int | None = server._forkserver_pid
    return pid


def kill_forkserver() -> None:
    """For one that does not answer: whoever waits for it gets EOFError, and the next start makes a new one."""
    if (pid := forkserver_pid()) is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True, eq=False)
class Started:
    """An executor whose one worker is up; `process` is a pidfd, since its number may be another's after it died."""

    executor: ProcessPoolExecutor
    pid: int
    process: int

    def __post_init__(self) -> None:
        _up.add(self)

    def kill(self) -> None:
        """Kill the worker, and let the executor end."""
        _up.discard(self)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.process, signal.SIGKILL)
        self.executor.shutdown(wait=False, cancel_futures=True)

    def end(self) -> None:
        """Kill the worker and wait until its executor has ended: not for the event loop."""
        thread = manager_thread(self.executor)
        self.kill()
        os.close(self.process)
        join(thread)


_up: weakref.WeakSet[Started] = weakref.WeakSet()


def _end_all() -> None:
    """Kill what is up before concurrent.futures waits for it at the interpreter's end: it might be stopped."""
    threads = [manager_thread(started.executor) for started in _up]
    for started in list(_up):
        started.kill()
    for thread in threads:
        join(thread)


# The hook by which concurrent.futures itself waits; those that were registered later run earlier.
threading._register_atexit(_end_all)  # type: ignore[attr-defined]  # not in typeshed


def manager_thread(executor: ProcessPoolExecutor) -> threading.Thread | None:
    """The executor's thread, which concurrent.futures joins at the end of the interpreter; lost after a shutdown."""
    thread: threading.Thread | None = executor._executor_manager_thread  # type: ignore[assignment]  # not in typeshed
    return thread


def join(thread: threading.Thread | None) -> None:
    """Wait for an executor's thread after its worker was killed, which a fork server that hangs does not report."""
    if thread:
        thread.join(END_SECONDS)
        if thread.is_alive():
            kill_forkserver()
            thread.join(END_SECONDS)
        # An executor is cyclic garbage when it has ended, and holds five descriptors until it is collected.
        gc.collect()


class Launch:
    """One start of a worker, in a daemon thread: it may hang, and nothing must wait for it at the interpreter's end."""

    def __init__(self, limits: WorkerLimits) -> None:
        self._limits = limits
        self._executor: ProcessPoolExecutor | None = None
        self._started: Future[Started] = Future()
        self._thread = self._in_thread(self._run)

    @staticmethod
    def _in_thread(work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name="worker-start", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        try:
            started = self._start()
        except BaseException as error:
            with contextlib.suppress(InvalidStateError):
                self._started.set_exception(error)
            return
        try:
            self._started.set_result(started)
        except InvalidStateError:
            started.end()

    def _start(self) -> Started:
        gc.collect()  # of the executor that this one replaces, see `join`
        _start_forkserver()
        executor = self._executor = ProcessPoolExecutor(1, _BareContext(), worker.start, (self._limits,))
        try:
            pid = executor.submit(os.getpid).result()
            return Started(executor, pid, os.pidfd_open(pid))
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise

    async def result(self) -> Started:
        """Raises one of START_FAULTS; after START_SECONDS, or when cancelled, the worker is not wanted any more."""
        try:
            async with asyncio.timeout(START_SECONDS):
                return await asyncio.wrap_future(self._started)
        except BaseException as error:
            self._abandon()
            if isinstance(error, TimeoutError):
                self._give_up()
                raise BrokenProcessPool(f"a worker did not start within {START_SECONDS:g} seconds") from None
            raise

    def _abandon(self) -> None:
        """The thread ends a worker that comes too late; one that just came is ended in another."""
        if not self._started.cancel() and self._started.exception() is None:
            self._thread = self._in_thread(self._started.result().end)

    def _give_up(self) -> None:
        """Kill what the start hangs in: the worker, or the fork server if there is none yet."""
        processes = list((self._executor._processes or {}).values()) if self._executor else []
        for process in processes:
            process.kill()
        if not processes:
            kill_forkserver()

    async def over(self) -> None:
        """Wait until nothing can come of the start any more."""
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, END_SECONDS)
        if self._thread.is_alive():
            self._give_up()
            await asyncio.to_thread(self._thread.join, END_SECONDS)
