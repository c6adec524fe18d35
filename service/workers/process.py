"""One worker process that is up: jobs go down its socket, and outcomes come up."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import cast

from service.imaging.plan import Job, Outcome
from service.workers import messages
from service.workers.launch import Started

_RECEIVED_BYTES = 65_536


class WorkerProcess:
    """A worker that is up: one job at a time, answered by its outcome. `lost` hears of its end, unless it is killed.

    It belongs to the running loop; when that was closed, `kill` is all that may be asked of it.
    """

    def __init__(self, started: Started, lost: Callable[[], None]) -> None:
        self.pid = started.popen.pid
        self.ended = asyncio.Event()
        self._popen = started.popen
        # The process itself: long after a worker died, its number may be another's.
        self._process = started.process
        self._socket = started.socket
        self._lost = lost
        self._killed = False
        self._received = bytearray()
        self._answer: asyncio.Future[Outcome] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._receive)

    def ask(self, job: Job) -> asyncio.Future[Outcome]:
        """The outcome to come; it fails with BrokenProcessPool when the worker ends, and on an answer that is none."""
        self._answer = self._loop.create_future()
        try:
            # It does not block: a job is smaller than the socket's buffer, which is empty.
            self._socket.sendall(messages.framed(job))
        except OSError as error:
            self._answer.set_exception(_broken(str(error)))
        return self._answer

    def cpu_seconds(self) -> float:
        """What the process has used of any core, by its CPU clock; 0 when it is gone."""
        try:
            # clock_getcpuclockid(3) of Linux, which Python has for threads only.
            return time.clock_gettime(~self.pid << 3 | 2)
        except OSError:
            return 0.0

    def kill(self) -> None:
        """End the process; whoever waits for an answer is told at once, and `ended` is set when it is gone."""
        if self._killed:
            return
        self._killed = True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        self._disconnect()
        if self._loop.is_closed():
            self._release()
        else:
            self._loop.add_reader(self._process, self._gone)

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_RECEIVED_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._disconnect()
            self._lost()
            return
        self._received += data
        if (message := messages.unframed(self._received)) is not None:
            self._received.clear()
            self._take(message)

    def _take(self, message: bytes) -> None:
        if self._answer and not self._answer.done():
            try:
                self._answer.set_result(cast("Outcome", messages.unpickled(message)))
            except Exception as error:
                self._answer.set_exception(_broken(f"what it answered cannot be read: {error!r}"))

    def _disconnect(self) -> None:
        if self._socket.fileno() < 0:
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
            if self._answer and not self._answer.done():
                self._answer.set_exception(_broken("it ended"))
        self._socket.close()

    def _gone(self) -> None:
        self._loop.remove_reader(self._process)
        self._release()
        self.ended.set()

    def _release(self) -> None:
        os.close(self._process)
        self._popen.close()


def _broken(reason: str) -> BrokenProcessPool:
    return BrokenProcessPool(f"a worker is lost: {reason}")
