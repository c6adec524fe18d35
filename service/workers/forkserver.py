"""multiprocessing's fork server, from which workers are forked: its start, its socket, its end."""

import contextlib
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from service.workers.tempdir import socket_directory

_lock = threading.Lock()
_socket: int | None = None


def forkserver_pid() -> int | None:
    pid: int | None = _server()._forkserver_pid
    return pid


def is_alive(pid: int | None) -> bool:
    """Whether this child runs; one that ended is not reaped, which multiprocessing does."""
    if pid is None:
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def start_forkserver() -> None:
    """Start the fork server, with Pillow loaded, unless it runs; raises OSError."""
    with _lock:
        if not is_alive(forkserver_pid()):
            multiprocessing.forkserver.set_forkserver_preload(["service.workers.worker"])
            _allow_owner()
            with _stop_signals_blocked(), socket_directory():
                multiprocessing.forkserver.ensure_running()
                _keep_socket()


def kill_forkserver() -> None:
    """For one that does not answer: whoever waits for it gets EOFError, and the next start makes a new one."""
    if (pid := forkserver_pid()) is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _allow_owner() -> None:
    """Take no permission from the owner of new files: no worker could open the semaphores it shares with us."""
    before = os.umask(0o077)
    os.umask(before & 0o077)


def _server() -> Any:
    return multiprocessing.forkserver._forkserver


@contextlib.contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """The fork server and the workers inherit the mask: a stop signal to the process group must spare them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        # The fork server would start the tracker, whose start unblocks SIGINT and SIGTERM in Python 3.11. The tracker
        # itself ignores these two.
        multiprocessing.resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _keep_socket() -> None:
    """Reach the socket by an open descriptor from now on: whoever empties the temporary directory removes its path."""
    global _socket
    server, before = _server(), _socket
    _socket = os.open(server._forkserver_address, os.O_PATH | os.O_CLOEXEC)
    server._forkserver_address = f"/proc/self/fd/{_socket}"
    if before is not None:
        os.close(before)
