"""The signals that ask to stop: SIGTERM, SIGINT (Ctrl-C) and SIGHUP (the terminal was closed)."""

import asyncio
import os
import signal
from collections.abc import Callable

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def on_stop_signal(heard: Callable[[], object]) -> None:
    """Have the running loop call `heard` for each of them.

    One that was ignored when the process started, as by nohup, stays ignored.
    """
    terminal = _Terminal()

    def hang_up() -> None:
        if not terminal.closed_before():
            heard()

    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            callback = hang_up if number == signal.SIGHUP else heard
            asyncio.get_running_loop().add_signal_handler(number, callback)


class _Terminal:
    """The controlling terminal. Closing it brings a SIGHUP from the shell and another from the kernel: one event."""

    def __init__(self) -> None:
        self._open = _has_terminal()
        self._closed = False

    def closed_before(self) -> bool:
        """Whether a hang-up only repeats that the terminal was closed; one sent by hand does not."""
        closed_now = self._open and not _has_terminal()
        before, self._closed = self._closed, closed_now
        return before


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
