"""Listening sockets, one per address of the host; a single IPv6 socket is dual-stack."""

import errno
import socket
from typing import Any

from service.errors import SettingsError

# Errors of an address, or an address family, that this machine does not have.
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def open_sockets(host: str, port: int) -> list[socket.socket]:
    """A bound socket for each address of `host` that this machine has.

    Raises SettingsError if it has none of them, OSError if the port cannot be bound.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = dict.fromkeys((family, address) for family, _, _, _, address in found)
    opened: list[socket.socket] = []
    absent = ""
    try:
        for family, address in addresses:
            try:
                opened.append(_bound(family, address, dual_stack=len(addresses) == 1))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                absent = error.strerror or ""
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    if not opened:
        raise SettingsError(f"HOST={host!r} is not allowed: this machine has no such address ({absent})")
    return opened


def _bound(family: int, address: tuple[Any, ...], *, dual_stack: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # asyncio always sets it, so that `::` would not accept IPv4.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual_stack)
        listener.bind(address)
    except OSError as error:
        listener.close()
        reason = (error.strerror or "").lower()
        raise OSError(error.errno, f"cannot listen on {address[0]} port {address[1]}: {reason}") from None
    return listener
