"""The start of a worker process by multiprocessing's fork server, either of which may hang."""

import asyncio
import contextlib
import os
import select
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from types import ModuleType
from typing import Any

from service.imaging.plan import WorkerLimits
from service.workers import entry
from service.workers.forkserver import forkserver_pid, kill_forkserver, start_forkserver

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


@dataclass(frozen=True)
class Ending:
    """An executor whose worker was killed, by its thread, which concurrent.futures joins at the interpreter's end."""

    _thread: weakref.ref[threading.Thread]

    def join(self) -> None:
        """Wait for the end, which a fork server that hangs does not report: not for the event loop."""
        if thread := self._thread():
            thread.join(END_SECONDS)
            if thread.is_alive():
                kill_forkserver()
                thread.join(END_SECONDS)


class Started:
    """An executor whose one worker is up; `process` is a pidfd, since its number may be another's after it died.

    The worker is killed and the pidfd closed by `kill`, or when nothing refers to this any more.
    """

    def __init__(self, executor: ProcessPoolExecutor, pid: int) -> None:
        self.executor = executor
        self.pid = pid
        self.process = os.pidfd_open(pid)
        self.forkserver = forkserver_pid()
        self._kill = weakref.finalize(self, _kill, self.process)
        thread: Any = executor._executor_manager_thread  # lost after a shutdown
        # Weakly, for it holds the executor's descriptors when it has ended.
        self._thread: weakref.ref[threading.Thread] = weakref.ref(thread)
        with _up_lock:
            _up.add(self)

    def ended(self) -> bool:
        """Whether the worker's process has ended."""
        poll = select.poll()
        poll.register(self.process, select.POLLIN)
        return bool(poll.poll(0))

    def kill(self) -> Ending:
        """Kill the worker, at once and only once, and let the executor end."""
        self._kill()
        self.executor.shutdown(wait=False, cancel_futures=True)
        return Ending(self._thread)

    def forget(self) -> None:
        """Leave the worker as it is."""
        self._kill.detach()


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, signal.SIGKILL)
    os.close(process)


_up: weakref.WeakSet[Started] = weakref.WeakSet()
_up_lock = threading.Lock()


def _end_all() -> None:
    """Kill what is up before concurrent.futures waits for it at the interpreter's end: it might be stopped."""
    with _up_lock:
        up = list(_up)
    for ending in [started.kill() for started in up]:
        ending.join()


def _forget() -> None:
    """What is up belongs to the parent of this process, which was forked."""
    for started in list(_up):
        started.forget()
    _up.clear()


os.register_at_fork(after_in_child=_forget)
# The hook by which concurrent.futures itself waits; those that were registered later run earlier.
threading._register_atexit(_end_all)  # type: ignore[attr-defined]  # not in typeshed


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
            # They hold the executor, and with it five descriptors.
            traceback.clear_frames(error.__traceback__)
            with contextlib.suppress(InvalidStateError):
                self._started.set_exception(error)
            return
        try:
            self._started.set_result(started)
        except InvalidStateError:
            started.kill().join()

    def _start(self) -> Started:
        start_forkserver()
        executor = self._executor = ProcessPoolExecutor(1, _BareContext(), entry.start, (self._limits,))
        try:
            return Started(executor, executor.submit(os.getpid).result())
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            self._executor = None

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
            self._thread = self._in_thread(self._started.result().kill().join)

    def _give_up(self) -> None:
        """Kill what the start hangs in: the worker, or the fork server if there is none yet."""
        executor = self._executor
        processes = list((executor._processes or {}).values()) if executor else []
        for process in processes:
            process.kill()
        if not processes:
            kill_forkserver()

    async def over(self) -> None:
        """Wait until nothing can come of the start any more; whoever waited for it may be in a loop that was closed."""
        self._abandon()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, END_SECONDS)
        if self._thread.is_alive():
            self._give_up()
            await asyncio.to_thread(self._thread.join, END_SECONDS)
