"""The body of a reply while it arrives: in memory up to a limit for all replies together, beyond that on disk."""

import asyncio
import contextlib
import ctypes
from typing import Protocol

from service.errors import BadReply, GeminiError, ServiceError
from service.gemini.reply import Reply, try_reply
from service.gemini.wire import Bytes

# mallopt's name for the size from which glibc maps a buffer on its own, and the size that it gets here.
_M_MMAP_THRESHOLD = -3
_MAPPED_BYTES = 4 * 1024 * 1024


def return_large_buffers() -> None:
    """Let this process return each large buffer to the system as soon as it is freed.

    By default glibc raises the threshold up to 32 MiB, and then every thread that ever read a reply keeps its memory:
    more than twice the limit in all.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


class BodyFile(Protocol):
    """A file that was opened before the call. Its methods block, so they are called in threads."""

    def write(self, data: Bytes, offset: int) -> int:
        """Returns how many bytes were written: fewer than all of them when the disk is full."""

    def read(self, size: int) -> bytes: ...

    def sync(self) -> None: ...


class ReplyMemory:
    """Counts the bytes that all replies have in memory, each from its first byte until its picture is stored.

    `reading` is held while one reply is read, because its picture takes almost as much memory again.
    """

    def __init__(self, limit: int) -> None:
        self.used = 0
        self.reading = asyncio.Lock()
        self._limit = limit
        self._waiting = asyncio.Lock()
        self._released = asyncio.Event()

    def reserve(self, size: int) -> bool:
        """Reserve `size` bytes, unless that exceeds the limit or a reply on disk waits for memory."""
        if self._waiting.locked() or self.used + size > self._limit:
            return False
        self.used += size
        return True

    async def wait_for(self, size: int) -> None:
        """Reserve `size` bytes once they are free, or once no other reply has any; first come, first served."""
        async with self._waiting:
            while self.used and self.used + size > self._limit:
                self._released.clear()
                await self._released.wait()
            self.used += size

    def adjust(self, size: int) -> None:
        """Release bytes (a negative `size`), or reserve bytes that would be lost otherwise, regardless of the limit."""
        self.used += size
        if size < 0:
            self._released.set()


class ReplyBody:
    """The bytes of one reply: the first `spilled` bytes are in `file`, the others in memory.

    The owner sets `file` before each call, and closes the body once the picture is stored.
    """

    def __init__(self, memory: ReplyMemory) -> None:
        self.file: BodyFile | None = None
        self.spilled = 0
        self._rest = bytearray()
        self._disk_full = False
        self._memory = memory
        self._reserved = 0

    @property
    def size(self) -> int:
        return self.spilled + len(self._rest)

    @property
    def rest(self) -> bytearray:
        """The bytes that are not in the file."""
        return self._rest

    def clear(self) -> None:
        self._rest, self.spilled, self._disk_full = bytearray(), 0, False
        self._reserve_exactly(0)

    close = clear

    async def add(self, data: bytes) -> None:
        """Append data. If the disk is full, it stays in memory: a reply that may be billed is never dropped."""
        fits = not self.spilled and self._memory.reserve(len(data))
        self._rest += data
        if fits:
            self._reserved += len(data)
            return
        if self.file and not self._disk_full:
            await self._spill(self.file)
        self._reserve_exactly(len(self._rest))

    async def _spill(self, file: BodyFile) -> None:
        """Move what is in memory to the file, as far as the disk takes it."""
        written = await asyncio.to_thread(file.write, self._rest, self.spilled)
        self._disk_full = written < len(self._rest)
        self.spilled += written
        self._rest = self._rest[written:]

    def _reserve_exactly(self, size: int) -> None:
        """Reserve `size` bytes in all, regardless of the limit."""
        self._memory.adjust(size - self._reserved)
        self._reserved = size

    async def file_rest(self) -> bool:
        """Move the rest to the file, and fsync it; False if the disk is full."""
        if self.file:
            if self._rest:
                await self._spill(self.file)
            await asyncio.to_thread(self.file.sync)
        return not self._rest

    async def read(self, key: str) -> Reply:
        """Read the picture, which replaces the body in memory; raises GeminiError, and then the body is unchanged."""
        reply = await self._read(key)
        if isinstance(reply, GeminiError):
            self._reserve_exactly(len(self._rest))
            raise reply
        self._rest = bytearray()
        self._reserve_exactly(len(reply.picture))
        return reply

    async def _read(self, key: str) -> Reply | GeminiError:
        try:
            body = await self._whole()
        except ServiceError as error:
            return BadReply(f"Gemini's reply cannot be read back: {error.detail}", billed=None)
        async with self._memory.reading:
            return await asyncio.to_thread(try_reply, body, key)

    async def _whole(self) -> Bytes:
        """The body in memory. Waits for memory only if it holds none, so that no two replies block each other."""
        if not (self.spilled and self.file):
            return self._rest
        if self._reserved:
            self._memory.adjust(self.spilled)
        else:
            await self._memory.wait_for(self.spilled)
        self._reserved += self.spilled
        front = await asyncio.to_thread(self.file.read, self.spilled)
        return front + self._rest if self._rest else front
