"""The start of a worker process by the fork server, which may hang."""

import asyncio
import contextlib
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from multiprocessing.popen_forkserver import Popen
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


def _start_forkserver() -> None:
    """Start the fork server with Pillow loaded, and SIGTERM blocked: a signal to the group must spare the workers."""
    multiprocessing.forkserver.set_forkserver_preload(["service.workers.worker"])
    # The fork server would start the tracker, whose start unblocks SIGTERM in Python 3.11.
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def forkserver_pid() -> int | None:
    server: Any = multiprocessing.forkserver._forkserver
    pid: int | None = server._forkserver_pid
    return pid


@dataclass(frozen=True, slots=True)
class Started:
    """A worker that said it is ready. `popen` holds the pipe by which the worker knows that we live."""

    popen: Popen
    process: int
    socket: socket.socket

    def end(self) -> None:
        """Kill the worker and wait until it is gone: not for the event loop."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.process, signal.SIGKILL)
        gone = select.poll()
        gone.register(self.process, select.POLLIN)
        gone.poll(END_SECONDS * 1000)
        os.close(self.process)
        self.socket.close()
        self.popen.close()


class Launch:
    """One start of a worker, in a daemon thread: it may hang, and nothing must wait for it at the interpreter's end.

    The process is not one of multiprocessing's children, which that would join at the end.
    """

    def __init__(self, limits: WorkerLimits) -> None:
        self._limits = limits
        self._forkserver: int | None = None
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
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.enter_context(ours)
            with theirs:
                popen = self._forked(theirs)
            started = Started(popen, os.pidfd_open(popen.pid), ours)
            stack.callback(started.end)
            ours.settimeout(START_SECONDS)
            if not ours.recv(len(worker.READY)):
                raise BrokenProcessPool("a worker ended at its start")
            ours.settimeout(0)
            stack.pop_all()
        return started

    def _forked(self, theirs: socket.socket) -> Popen:
        with _hidden_main():
            _start_forkserver()
            self._forkserver = forkserver_pid()
            try:
                return Popen(ForkServerProcess(target=worker.serve, args=(theirs, self._limits)))
            finally:
                self._forkserver = None

    async def result(self) -> Started:
        """Raises one of START_FAULTS; after START_SECONDS, or when cancelled, the worker is not wanted any more."""
        try:
            async with asyncio.timeout(START_SECONDS):
                return await asyncio.wrap_future(self._started)
        except BaseException as error:
            self._abandon()
            if isinstance(error, TimeoutError):
                self._kill_forkserver()
                raise BrokenProcessPool(f"a worker did not start within {START_SECONDS:g} seconds") from None
            raise

    def _abandon(self) -> None:
        """The thread ends a worker that comes too late; one that just came is ended in another."""
        if not self._started.cancel() and self._started.exception() is None:
            self._thread = self._in_thread(self._started.result().end)

    def _kill_forkserver(self) -> None:
        """What a start hangs in is a fork server that does not answer: the next start makes a new one."""
        if (pid := self._forkserver) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def over(self) -> None:
        """Wait until nothing can come of the start any more."""
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, END_SECONDS)
        if self._thread.is_alive():
            self._kill_forkserver()
            await asyncio.to_thread(self._thread.join, END_SECONDS)
