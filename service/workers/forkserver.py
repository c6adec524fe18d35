"""multiprocessing's fork server, from which workers are forked: its start, its socket, its end."""

import contextlib
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext, ForkServerProcess
from types import ModuleType
from typing import Any

from service.workers.tempdir import socket_directory

# Modules that the fork server imports once, Pillow among them, instead of every worker.
PRELOADED = [
    "service.workers.worker",
    "service.workers.entry",
    "service.workers.forkserver",
    "concurrent.futures.process",
]

_lock = threading.Lock()
_main_lock = threading.Lock()
_socket: int | None = None


@contextlib.contextmanager
def _hidden_main() -> Iterator[None]:
    """Keep multiprocessing from importing the caller's `__main__` in the child: an unguarded script would run twice."""
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


class BareContext(ForkServerContext):
    """A context whose processes do not import the caller's `__main__`.

    Each worker unpickles its process object, and so imports the module of these classes: one with asyncio in it would
    cost 20 ms of CPU.
    """

    Process = _BareProcess


def forkserver_pid() -> int | None:
    pid: int | None = _server()._forkserver_pid
    return pid


def _is_running(pid: int | None) -> bool:
    """Whether a child process runs. One that has ended is left for multiprocessing to reap."""
    if pid is None:
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def start_forkserver() -> None:
    """Start the fork server, with Pillow loaded, unless it runs; raises OSError."""
    with _lock:
        if not _is_running(forkserver_pid()):
            multiprocessing.forkserver.set_forkserver_preload(PRELOADED)
            _allow_owner()
            with _stop_signals_blocked(), socket_directory():
                multiprocessing.forkserver.ensure_running()
                _keep_socket()


def kill_forkserver() -> None:
    """Kill a fork server that hangs: callers that wait for it get EOFError, and the next start makes a new one."""
    if (pid := forkserver_pid()) is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _allow_owner() -> None:
    """Change a umask that takes permissions from the owner: no worker could open the semaphores shared with it."""
    before = os.umask(0o077)
    os.umask(before & 0o077)


def _server() -> Any:
    return multiprocessing.forkserver._forkserver


@contextlib.contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """Block the stop signals, because workers inherit the mask: a signal to the process group must not end them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        # Started here, because starting it unblocks SIGINT and SIGTERM in Python 3.11. It ignores both itself.
        multiprocessing.resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _keep_socket() -> None:
    """Connect to the socket through an open descriptor from now on, so that its path may be removed."""
    global _socket
    server, before = _server(), _socket
    _socket = os.open(server._forkserver_address, os.O_PATH | os.O_CLOEXEC)
    server._forkserver_address = f"/proc/self/fd/{_socket}"
    if before is not None:
        os.close(before)
