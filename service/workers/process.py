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


class WorkerProcess(asyncio.Protocol):
    """A worker that is up: one job at a time, answered by its outcome. `lost` hears of its end."""

    def __init__(self, started: Started, lost: Callable[["WorkerProcess"], None]) -> None:
        self.pid = started.popen.pid
        self.ended = asyncio.Event()
        self._popen = started.popen
        self._killed = False
        # The process itself: long after a worker died, its number may be another's.
        self._process = started.process
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._answer: asyncio.Future[Outcome] | None = None

    @classmethod
    async def connected(cls, started: Started, lost: Callable[["WorkerProcess"], None]) -> "WorkerProcess":
        process = cls(started, lost)
        await asyncio.get_running_loop().create_unix_connection(lambda: process, sock=started.socket)
        return process

    def ask(self, job: Job) -> asyncio.Future[Outcome]:
        """The outcome to come; it fails with BrokenProcessPool when the worker ends, and on an answer that is none."""
        self._answer = asyncio.get_running_loop().create_future()
        if self._transport is None:
            self._answer.set_exception(_broken())
        else:
            self._transport.write(messages.framed(job))
        return self._answer

    def cpu_seconds(self) -> float:
        """What the process has used of any core, by its CPU clock; 0 when it is gone."""
        try:
            # clock_getcpuclockid(3) of Linux, which Python has for threads only.
            return time.clock_gettime(~self.pid << 3 | 2)
        except OSError:
            return 0.0

    def kill(self) -> None:
        """End the process; `ended` is set when it is gone."""
        if self._killed:
            return
        self._killed = True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        if self._transport:
            self._transport.abort()
        asyncio.get_running_loop().add_reader(self._process, self._gone)

    def _gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process)
        os.close(self._process)
        self._popen.close()
        self.ended.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if (message := messages.unframed(self._received)) is None:
            return
        self._received.clear()
        if self._answer and not self._answer.done():
            try:
                self._answer.set_result(cast("Outcome", messages.unpickled(message)))
            except Exception as error:
                self._answer.set_exception(_broken(f"what it answered cannot be read: {error!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer and not self._answer.done():
            self._answer.set_exception(_broken())
        self._lost(self)


def _broken(reason: str = "it ended") -> BrokenProcessPool:
    return BrokenProcessPool(f"a worker is lost: {reason}")
