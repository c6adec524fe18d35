"""Accepting connections only as far as file descriptors last: work that was begun needs some, too."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterable, Iterator

from service.store.descriptors import ACCEPT, CONNECT, spare

BACKLOG = 1024
# So many at a time: what was accepted takes its descriptor before anybody looks again at how many are left.
BATCH = 16
PAUSE_SECONDS = 0.05
# No connection is there, or it went away before it was accepted.
_NONE = (errno.EAGAIN, errno.EINTR, errno.ECONNABORTED, errno.EPROTO)


class Acceptor:
    """Accepts on one socket; `connect` makes a protocol, `make_way` closes so many idle connections.

    asyncio's own server accepts all that wait before it looks at any, and takes the last descriptor for it. Here
    idle connections go for new ones; where all are busy, a few more are let in to be refused, and others wait.
    """

    def __init__(
        self, listener: socket.socket, connect: Callable[[], asyncio.Protocol], make_way: Callable[[int], None]
    ) -> None:
        self._listener = listener
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
        for _ in range(room):
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if error.errno not in _NONE:
                    self._pause()
                return
            self._serve(connection)
        if room < 1:
            self._pause()

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
    listeners: Iterable[socket.socket], connect: Callable[[], asyncio.Protocol], make_way: Callable[[int], None]
) -> Iterator[None]:
    """Accept on bound sockets, which are closed at the end."""
    with contextlib.ExitStack() as stack:
        for listener in listeners:
            stack.callback(Acceptor(listener, connect, make_way).close)
        yield
