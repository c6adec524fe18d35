"""Starts a worker process through multiprocessing's fork server, in a thread, since either may hang."""

import asyncio
import contextlib
import os
import select
import signal
import threading
import traceback
import weakref
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from service.imaging.plan import WorkerLimits
from service.workers import entry
from service.workers.forkserver import BareContext, forkserver_pid, kill_forkserver, start_forkserver

# A start takes a tenth of a second; on a machine so busy that it takes this long, nothing else works either.
START_SECONDS = 30.0
# How long to wait for a killed process to end, and for a start that was abandoned.
END_SECONDS = 5.0
START_FAULTS = (BrokenProcessPool, OSError, EOFError)


@dataclass(frozen=True)
class Shutdown:
    """The end of an executor whose worker was killed; concurrent.futures joins its thread at interpreter exit."""

    _thread: weakref.ref[threading.Thread]

    def join(self) -> None:
        """Wait for the executor's thread to end. Blocks.

        It waits for the fork server to report the worker's exit, so a fork server that hangs is killed.
        """
        if thread := self._thread():
            thread.join(END_SECONDS)
            if thread.is_alive():
                kill_forkserver()
                thread.join(END_SECONDS)


class RunningWorker:
    """A worker that is up, and its executor.

    It is signalled by pidfd, since its pid may be reused once it has died. It is killed, and the pidfd closed, by
    `kill` or when this object is garbage.
    """

    def __init__(self, executor: ProcessPoolExecutor, pid: int) -> None:
        self.executor = executor
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.forkserver = forkserver_pid()
        self._kill = weakref.finalize(self, _kill, self.pidfd)
        thread: Any = executor._executor_manager_thread  # unset by `shutdown`
        # Weakly referenced, because an ended thread still holds the executor's descriptors.
        self._thread: weakref.ref[threading.Thread] = weakref.ref(thread)
        with _running_lock:
            _running.add(self)

    def ended(self) -> bool:
        """Whether the worker's process has ended."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def kill(self) -> Shutdown:
        """Kill the worker, unless that was done before, and shut its executor down without waiting."""
        self._kill()
        self.executor.shutdown(wait=False, cancel_futures=True)
        return Shutdown(self._thread)

    def disown(self) -> None:
        """Never kill the worker."""
        self._kill.detach()


def _kill(pidfd: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)


_running: weakref.WeakSet[RunningWorker] = weakref.WeakSet()
_running_lock = threading.Lock()


def _kill_all() -> None:
    """At interpreter exit, before concurrent.futures waits for the workers: one may be stopped and never end."""
    with _running_lock:
        running = list(_running)
    for shutdown in [worker.kill() for worker in running]:
        shutdown.join()


def _disown_all() -> None:
    """In a forked child: the workers belong to its parent."""
    for worker in list(_running):
        worker.disown()
    _running.clear()


os.register_at_fork(after_in_child=_disown_all)
# The hook that concurrent.futures uses itself. Callbacks run in reverse order of registration, so this one is first.
threading._register_atexit(_kill_all)  # type: ignore[attr-defined]  # not in typeshed


class Launch:
    """One start of a worker, in a daemon thread: it may hang, and interpreter exit must not wait for it."""

    def __init__(self, limits: WorkerLimits) -> None:
        self._limits = limits
        # Set while the worker is being started, for `_kill_hanging`.
        self._executor: ProcessPoolExecutor | None = None
        self._result: Future[RunningWorker] = Future()
        self._thread = self._in_thread(self._run)

    @staticmethod
    def _in_thread(work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name="worker-start", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        try:
            worker = self._start()
        except BaseException as error:
            # The frames refer to the executor, and so to five descriptors.
            traceback.clear_frames(error.__traceback__)
            with contextlib.suppress(InvalidStateError):
                self._result.set_exception(error)
            return
        try:
            self._result.set_result(worker)
        except InvalidStateError:  # abandoned
            worker.kill().join()

    def _start(self) -> RunningWorker:
        start_forkserver()
        executor = self._executor = ProcessPoolExecutor(1, BareContext(), entry.start, (self._limits,))
        try:
            return RunningWorker(executor, executor.submit(os.getpid).result())
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            self._executor = None

    async def result(self) -> RunningWorker:
        """Wait for the worker; raises one of START_FAULTS, also after START_SECONDS.

        In these cases, and when the caller is cancelled, the start is abandoned: a worker that starts later is killed.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                return await asyncio.wrap_future(self._result)
        except BaseException as error:
            self._abandon()
            if isinstance(error, TimeoutError):
                self._kill_hanging()
                raise BrokenProcessPool(f"a worker did not start within {START_SECONDS:g} seconds") from None
            raise

    def _abandon(self) -> None:
        """Have the thread kill the worker when it comes up; if it is up already, kill it in another thread."""
        if not self._result.cancel() and self._result.exception() is None:
            self._thread = self._in_thread(self._result.result().kill().join)

    def _kill_hanging(self) -> None:
        """Kill the process that the start waits for: the worker, or the fork server if there is no worker yet."""
        executor = self._executor
        processes = list((executor._processes or {}).values()) if executor else []
        for process in processes:
            process.kill()
        if not processes:
            kill_forkserver()

    async def end(self) -> None:
        """Abandon the start, and wait until it can no longer produce a worker.

        It may not have been abandoned before: a caller in an event loop that is closed was never cancelled.
        """
        self._abandon()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, END_SECONDS)
        if self._thread.is_alive():
            self._kill_hanging()
            await asyncio.to_thread(self._thread.join, END_SECONDS)
