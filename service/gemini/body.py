"""The body of one reply as it comes: in memory while all replies together leave room for it, beyond that on disk."""

import asyncio
from typing import Protocol

from service.errors import BadReply, GeminiError, ServiceError
from service.gemini.reply import Reply, try_reply
from service.gemini.wire import Bytes


class Spill(Protocol):
    """A file that was opened before the call; its methods are called in threads."""

    def write(self, data: Bytes, offset: int) -> int:
        """Returns how many bytes were written: fewer than all of them when the disk takes no more."""

    def read(self, size: int) -> bytes: ...

    def sync(self) -> None: ...


class ReplyMemory:
    """How many bytes all replies may take in memory, from their first byte until their picture is kept.

    `reading` is held by the reply that is being read: its picture takes almost as much again.
    """

    def __init__(self, size: int) -> None:
        self.used = 0
        self.reading = asyncio.Lock()
        self._size = size
        self._line = asyncio.Lock()
        self._returned = asyncio.Event()

    def take(self, size: int) -> bool:
        """Take so many bytes if they are free and no reply on the disk waits for them."""
        if self._line.locked() or self.used + size > self._size:
            return False
        self.used += size
        return True

    async def wait_for(self, size: int) -> None:
        """Take so many bytes when they are free, or when nobody else has any; in turn."""
        async with self._line:
            while self.used and self.used + size > self._size:
                self._returned.clear()
                await self._returned.wait()
            self.used += size

    def add(self, size: int) -> None:
        """Give back bytes (less than 0), or take some whether they are free or not, as what would be lost otherwise."""
        self.used += size
        if size < 0:
            self._returned.set()


class ReplyBody:
    """The bytes of one reply. Its owner gives it its file before each call, and closes it when they are kept."""

    def __init__(self, memory: ReplyMemory) -> None:
        self.file: Spill | None = None
        # So many bytes at the front are in the file; the others are in memory, of which `_taken` bytes are ours.
        self.spilled = 0
        self._rest = bytearray()
        self._disk_full = False
        self._memory = memory
        self._taken = 0

    @property
    def size(self) -> int:
        return self.spilled + len(self._rest)

    @property
    def rest(self) -> bytearray:
        """What is not in the file."""
        return self._rest

    def clear(self) -> None:
        self._rest, self.spilled, self._disk_full = bytearray(), 0, False
        self._hold(0)

    close = clear

    async def add(self, data: bytes) -> None:
        """Take what has come. What the disk refuses too stays in memory: no paid reply is dropped for lack of room."""
        in_memory = not self.spilled and self._memory.take(len(data))
        self._rest += data
        if in_memory:
            self._taken += len(data)
            return
        if self.file and not self._disk_full:
            await self._spill(self.file)
        self._hold(len(self._rest))

    async def _spill(self, file: Spill) -> None:
        written = await asyncio.to_thread(file.write, self._rest, self.spilled)
        self._disk_full = written < len(self._rest)
        self.spilled += written
        self._rest = self._rest[written:]

    def _hold(self, size: int) -> None:
        """Hold exactly so many bytes of the memory, whether they are free or not."""
        self._memory.add(size - self._taken)
        self._taken = size

    async def file_rest(self) -> bool:
        """Put the rest into the file too, and make it durable; False if the disk takes no more."""
        if self.file:
            if self._rest:
                await self._spill(self.file)
            await asyncio.to_thread(self.file.sync)
        return not self._rest

    async def read(self, key: str) -> Reply:
        """The picture in it, which is all that stays in memory; raises GeminiError, and then nothing is changed."""
        reply = await self._read(key)
        if isinstance(reply, GeminiError):
            self._hold(len(self._rest))
            raise reply
        self._rest = bytearray()
        self._hold(len(reply.picture))
        return reply

    async def _read(self, key: str) -> Reply | GeminiError:
        try:
            body = await self._whole()
        except ServiceError as error:
            return BadReply(f"Gemini's reply cannot be read back: {error.detail}", billed=None)
        async with self._memory.reading:
            return await asyncio.to_thread(try_reply, body, key)

    async def _whole(self) -> Bytes:
        """All of it in memory. What was spilled waits until there is room; who holds memory does not wait for more."""
        if not (self.spilled and self.file):
            return self._rest
        if self._taken:
            self._memory.add(self.spilled)
        else:
            await self._memory.wait_for(self.spilled)
        self._taken += self.spilled
        front = await asyncio.to_thread(self.file.read, self.spilled)
        return front + self._rest if self._rest else front
