"""The signals that ask the process to stop: SIGTERM, SIGINT (Ctrl-C) and SIGHUP (the terminal was closed).

Nothing slow is imported here, since `exit_on_stop_signals` is what the process does first.
"""

import os
import signal
import sys
from collections.abc import Callable

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def exit_on_stop_signals(status: int) -> None:
    """Exit with `status`, silently, on a signal that comes while modules are imported or settings are read.

    In a running event loop it raises KeyboardInterrupt, so that `asyncio.run` cleans up. `on_stop_signal` replaces it.
    """

    def stop(*_: object) -> None:
        if _loop_runs():
            raise KeyboardInterrupt
        os._exit(status)

    for number in _not_ignored():
        signal.signal(number, stop)


def on_stop_signal(callback: Callable[[], object]) -> None:
    """Have the running event loop call `callback` on each of them."""
    import asyncio

    terminal = _Terminal()

    def hang_up() -> None:
        if not terminal.closed_before():
            callback()

    loop = asyncio.get_running_loop()
    for number in _not_ignored():
        loop.add_signal_handler(number, hang_up if number == signal.SIGHUP else callback)


def _not_ignored() -> list[signal.Signals]:
    """A signal that was ignored when the process started, as by nohup, stays ignored."""
    return [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def _loop_runs() -> bool:
    # It may be half imported.
    running = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    return running is not None and running() is not None


class _Terminal:
    """The controlling terminal: when it is closed, the shell and the kernel send a SIGHUP each, which count as one."""

    def __init__(self) -> None:
        self._open = _has_terminal()
        self._closed = False

    def closed_before(self) -> bool:
        """Whether this SIGHUP only repeats that the terminal was closed; one sent by `kill` does not."""
        closed_now = self._open and not _has_terminal()
        before, self._closed = self._closed, closed_now
        return before


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
