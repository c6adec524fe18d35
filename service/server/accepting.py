"""Accept connections only while file descriptors are left for the work that has begun."""

import asyncio
import contextlib
import errno
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator

from service.store.descriptors import ACCEPT, CONNECT, spare

BACKLOG = 1024
# Connections accepted per iteration of the event loop.
BATCH = 16
PAUSE_SECONDS = 0.02
# No connection is waiting, or it was closed before it was accepted.
_NONE = (errno.EAGAIN, errno.EINTR, errno.ECONNABORTED, errno.EPROTO)


class Reserve:
    """A file descriptor held in reserve, so that one connection at a time can still ask /readyz.

    Create it early: after `prlimit` has lowered the limit, only descriptors with low numbers can be used.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._connection: socket.socket | None = None
        self._take()

    def accept(self, listener: socket.socket) -> socket.socket | None:
        """The next connection if the one before is closed; raises OSError."""
        if self._in_use():
            return None
        self.close()
        try:
            self._connection, _ = listener.accept()
        except OSError:
            self._take()
            raise
        return self._connection

    def restore(self) -> None:
        """Take the reserve again once its connection is closed."""
        if self._descriptor is None and not self._in_use():
            self._connection = None
            self._take()

    def _in_use(self) -> bool:
        return self._connection is not None and self._connection.fileno() >= 0

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            self._descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Acceptor:
    """Accepts connections on one socket, in place of asyncio's server, which would accept until EMFILE.

    `connect` makes the protocol of a connection. While descriptors are short, `close_unused(n)` closes up to `n`
    connections that do no work, and returns whether there are any; new ones stay in the listen queue until then.
    If all connections are busy, a few more are accepted, to be refused by their routes.
    """

    def __init__(
        self,
        listener: socket.socket,
        connect: Callable[[], asyncio.Protocol],
        close_unused: Callable[[int], bool],
        reserve: Reserve,
    ) -> None:
        self._listener = listener
        self._reserve = reserve
        self._connect = connect
        self._close_unused = close_unused
        self._loop = asyncio.get_running_loop()
        self._resume: asyncio.TimerHandle | None = None
        self._connecting: set[asyncio.Task[object]] = set()
        listener.setblocking(False)
        listener.listen(BACKLOG)
        self._loop.add_reader(listener, self._accept_some)

    def _accept_some(self) -> None:
        allowed = spare(CONNECT)
        try:
            if allowed < 1:
                self._pause()
                self._close_unused_or_accept(max(1, _queued(self._listener)) - allowed)
                return
            self._reserve.restore()
            for _ in range(min(BATCH, allowed)):
                self._serve(self._listener.accept()[0])
        except OSError as error:
            if error.errno not in _NONE and not self._resume:
                self._pause()

    def _close_unused_or_accept(self, wanted: int) -> None:
        if self._close_unused(wanted):
            return
        if spare(ACCEPT) > 0:
            self._serve(self._listener.accept()[0])
        elif connection := self._reserve.accept(self._listener):
            self._serve(connection)

    def _pause(self) -> None:
        """Leave connections in the listen queue for a moment."""
        self._loop.remove_reader(self._listener)
        self._resume = self._loop.call_later(PAUSE_SECONDS, self._resume_accepting)

    def _resume_accepting(self) -> None:
        self._resume = None
        self._loop.add_reader(self._listener, self._accept_some)

    def _serve(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        task = self._loop.create_task(self._connected(connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connected(self, connection: socket.socket) -> None:
        # asyncio closes a connection that was reset meanwhile.
        with contextlib.suppress(OSError):
            await self._loop.connect_accepted_socket(self._connect, connection)

    def close(self) -> None:
        if self._resume:
            self._resume.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for task in self._connecting:
            task.cancel()


def _queued(listener: socket.socket) -> int:
    """The length of the listen queue: `tcpi_unacked` of linux/tcp.h on a listening socket."""
    return int.from_bytes(listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)[24:], sys.byteorder)


@contextlib.contextmanager
def accepting(
    listeners: Iterable[socket.socket],
    connect: Callable[[], asyncio.Protocol],
    close_unused: Callable[[int], bool],
    reserve: Reserve,
) -> Iterator[None]:
    """Accept connections on bound sockets, which are closed at the end; see `Acceptor`."""
    with contextlib.ExitStack() as stack:
        for listener in listeners:
            stack.callback(Acceptor(listener, connect, close_unused, reserve).close)
        yield
