"""Tells systemd that the service is ready, stops, and is alive (sd_notify(3)), over the socket NOTIFY_SOCKET."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping

from service.server.background import in_background

log = logging.getLogger(__name__)

READY, STOPPING, ALIVE = "READY=1", "STOPPING=1", "WATCHDOG=1"
# As sd_watchdog_enabled(3) advises.
_WATCHDOG_SHARE = 0.5


def notify(state: str, environment: Mapping[str, str] = os.environ) -> None:
    """Send a state; does nothing without NOTIFY_SOCKET, and never waits: a state that is lost is logged."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        # A name in Linux's abstract namespace begins with a zero byte.
        address = f"\0{address[1:]}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            sender.sendto(state.encode(), address)
    except OSError as error:
        log.warning("systemd could not be told %s: %s", state, error.strerror)


def watchdog_seconds(environment: Mapping[str, str] = os.environ) -> float | None:
    """How often systemd wants a sign of life from this process; None if it wants none."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / 1_000_000 if text.isascii() and text.isdigit() and int(text) else None


@contextlib.asynccontextmanager
async def notifying() -> AsyncIterator[None]:
    """Report this process as ready, and as alive while the event loop runs."""
    notify(READY)
    interval = watchdog_seconds()
    async with in_background(_signs_of_life(interval * _WATCHDOG_SHARE)) if interval else contextlib.nullcontext():
        yield


async def _signs_of_life(seconds: float) -> None:
    while True:
        notify(ALIVE)
        await asyncio.sleep(seconds)
