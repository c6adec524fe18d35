"""Accepting connections only as far as file descriptors last: work that was begun needs some, too."""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator

from service.store.descriptors import ACCEPT, CONNECT, spare

BACKLOG = 1024
# So many at a time: what was accepted takes its descriptor before anybody looks again at how many are left.
BATCH = 16
PAUSE_SECONDS = 0.05
# No connection is there, or it went away before it was accepted.
_NONE = (errno.EAGAIN, errno.EINTR, errno.ECONNABORTED, errno.EPROTO)


class Reserve:
    """A descriptor kept back for one connection at a time, which can ask /readyz when there is no other.

    To be made early: a limit that is lowered from outside leaves only descriptors of low numbers.
    """

    def __init__(self) -> None:
        self._kept: int | None = None
        self._guest: socket.socket | None = None
        self._keep()

    def accept(self, listener: socket.socket) -> socket.socket | None:
        """The next connection, in place of the one before if that is closed; raises OSError."""
        if self._guest is None or self._guest.fileno() < 0:
            self.close()
            try:
                self._guest, _ = listener.accept()
            except OSError:
                self._keep()
                raise
            return self._guest
        return None

    def _keep(self) -> None:
        with contextlib.suppress(OSError):
            self._kept = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def restore(self) -> None:
        """Keep a descriptor again once the connection that had it is closed."""
        if self._kept is None and (self._guest is None or self._guest.fileno() < 0):
            self._guest = None
            self._keep()

    def close(self) -> None:
        if self._kept is not None:
            os.close(self._kept)
            self._kept = None


class Acceptor:
    """Accepts on one socket; `connect` makes a protocol, `make_way` closes connections of so many that do no work.

    asyncio's own server accepts all that wait before it looks at any, and takes the last descriptor for it. Here
    idle connections go for new ones; where all are busy, a few more are let in to be refused, and others wait.
    """

    def __init__(
        self,
        listener: socket.socket,
        connect: Callable[[], asyncio.Protocol],
        make_way: Callable[[int], None],
        reserve: Reserve,
    ) -> None:
        self._listener = listener
        self._reserve = reserve
        self._connect = connect
        self._make_way = make_way
        self._loop = asyncio.get_running_loop()
        self._resume: asyncio.TimerHandle | None = None
        self._connecting: set[asyncio.Task[object]] = set()
        listener.setblocking(False)
        listener.listen(BACKLOG)
        self._loop.add_reader(listener, self._accept_some)

    def _accept_some(self) -> None:
        room = min(BATCH, spare(CONNECT))
        if room < 1:
            self._make_way(1 - room)
            room = min(1, spare(ACCEPT))
        else:
            self._reserve.restore()
        try:
            for _ in range(room):
                connection, _ = self._listener.accept()
                self._serve(connection)
            if room < 1:
                self._accept_one()
        except OSError as error:
            if error.errno in _NONE:
                return
            room = 0
        if room < 1:
            self._pause()

    def _accept_one(self) -> None:
        if connection := self._reserve.accept(self._listener):
            self._serve(connection)

    def _pause(self) -> None:
        """Let connections wait in the kernel's queue."""
        self._loop.remove_reader(self._listener)
        self._resume = self._loop.call_later(PAUSE_SECONDS, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        self._loop.add_reader(self._listener, self._accept_some)

    def _serve(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        task = self._loop.create_task(self._connected(connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connected(self, connection: socket.socket) -> None:
        # A connection that broke meanwhile is closed by asyncio.
        with contextlib.suppress(OSError):
            await self._loop.connect_accepted_socket(self._connect, connection)

    def close(self) -> None:
        if self._resume:
            self._resume.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for task in self._connecting:
            task.cancel()


@contextlib.contextmanager
def accepting(
    listeners: Iterable[socket.socket],
    connect: Callable[[], asyncio.Protocol],
    make_way: Callable[[int], None],
    reserve: Reserve,
) -> Iterator[None]:
    """Accept on bound sockets, which are closed at the end."""
    with contextlib.ExitStack() as stack:
        for listener in listeners:
            stack.callback(Acceptor(listener, connect, make_way, reserve).close)
        yield
