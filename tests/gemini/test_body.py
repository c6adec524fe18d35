"""The bound on the memory of all replies, and files beyond it."""

import asyncio
import random

import pytest

from service.errors import BadReply, StorageUnavailable
from service.gemini.body import ReplyBody, ReplyMemory
from service.gemini.wire import Bytes
from tests.gemini.test_reply import USAGE, answer, picture
from tests.helpers import until

SIZE = 64 * 1024
REPLY = answer(picture(b"the picture " * 1000))


class File:
    """A file on a disk with `space` free bytes."""

    def __init__(self, space: int = 10**9) -> None:
        self.space = space
        self.data = b""
        self.synced = 0

    def write(self, data: Bytes, offset: int) -> int:
        taken = bytes(data[: self.space - offset])
        self.data = self.data[:offset] + taken
        return len(taken)

    def read(self, size: int) -> bytes:
        return self.data[:size]

    def sync(self) -> None:
        self.synced = len(self.data)


class BrokenFile(File):
    def read(self, size: int) -> bytes:
        raise StorageUnavailable("temp/ cannot be used: Input/output error")


async def filled(memory: ReplyMemory, file: File | None = None, data: bytes = REPLY) -> ReplyBody:
    body = ReplyBody(memory)
    body.file = file
    for at in range(0, len(data), 1000):
        await body.add(data[at : at + 1000])
    return body


async def test_a_reply_below_the_limit_stays_in_memory_until_it_is_closed() -> None:
    memory, file = ReplyMemory(10**6), File()
    body = await filled(memory, file)
    assert (memory.used, body.spilled, file.data) == (len(REPLY), 0, b"")
    reply = await body.read("")
    assert (reply.picture, reply.usage) == (b"the picture " * 1000, USAGE)
    assert memory.used == len(reply.picture)
    body.close()
    assert memory.used == 0


async def test_a_reply_above_the_limit_is_written_to_its_file() -> None:
    memory, file = ReplyMemory(5000), File()
    body = await filled(memory, file)
    assert (memory.used, body.spilled, body.size, file.data) == (0, len(REPLY), len(REPLY), REPLY)
    assert (await body.read("")).picture == b"the picture " * 1000
    body.close()
    assert memory.used == 0


@pytest.mark.parametrize("space", [0, 1, 7000])
async def test_bytes_that_a_full_disk_refuses_stay_in_memory(space: int) -> None:
    memory = ReplyMemory(5000)
    body = await filled(memory, File(space))
    assert (body.spilled, memory.used, body.size) == (space, len(REPLY) - space, len(REPLY))
    assert (await body.read("")).picture == b"the picture " * 1000
    body.close()
    assert memory.used == 0


@pytest.mark.parametrize("step", [1000, SIZE, SIZE + 1, 3 * SIZE])
@pytest.mark.parametrize("space", [0, 1, SIZE, 5 * SIZE, 10**9])
@pytest.mark.parametrize("limit", [1, 4 * SIZE, 10**9])
async def test_a_reply_is_whole_however_it_is_split_between_memory_and_file(step: int, space: int, limit: int) -> None:
    picture_bytes, memory, file = random.Random(0).randbytes(8 * SIZE), ReplyMemory(limit), File(space)
    data = answer(picture(picture_bytes))
    body = ReplyBody(memory)
    body.file = file
    for at in range(0, len(data), step):
        await body.add(data[at : at + step])
    assert (body.size, memory.used) == (len(data), len(data) - body.spilled)
    assert bool(file.data[: body.spilled] + body.rest == data)
    assert bool((await body.read("")).picture == picture_bytes)
    body.close()
    assert memory.used == 0


async def test_without_a_file_it_stays_in_memory() -> None:
    memory = ReplyMemory(5000)
    body = await filled(memory)
    assert memory.used == body.size == len(REPLY)
    assert (await body.read("")).picture


async def test_an_unreadable_reply_is_left_unchanged() -> None:
    for size, spilled in ((10**6, 0), (5000, len(REPLY))):
        memory, file = ReplyMemory(size), File()
        body = await filled(memory, file, b"<" * len(REPLY))
        with pytest.raises(BadReply):
            await body.read("")
        assert (body.size, body.spilled, memory.used) == (len(REPLY), spilled, len(REPLY) - spilled)
        assert await body.file_rest() is True
        assert file.synced == len(file.data) == len(REPLY)
        body.close()
        assert memory.used == 0


async def test_if_the_file_cannot_be_read_back_billed_is_unknown() -> None:
    memory = ReplyMemory(5000)
    body = await filled(memory, BrokenFile())
    with pytest.raises(BadReply, match="Input/output") as caught:
        await body.read("")
    assert caught.value.billed is None
    assert body.spilled == len(REPLY)
    body.close()
    assert memory.used == 0


async def test_a_spilled_reply_waits_for_memory_before_new_replies() -> None:
    memory = ReplyMemory(len(REPLY) + 5000)
    first = await filled(memory, File())
    spilled = await filled(memory, File())
    assert (first.spilled, spilled.spilled) == (0, len(REPLY))
    reading = asyncio.create_task(spilled.read(""))
    await asyncio.sleep(0)
    third = await filled(memory, File(), b"small")
    assert (reading.done(), third.spilled) == (False, 5)
    assert (await first.read("")).picture
    first.close()
    assert (await reading).picture
    spilled.close()
    assert (await filled(memory, File(), b"small")).spilled == 0


async def test_replies_of_any_number_and_size_are_all_read() -> None:
    memory = ReplyMemory(30_000)
    sizes = [10, 1000, 3000, 300, 5000, 1, 2000, 4000, 2500] * 5
    peak = 0

    async def one(number: int, size: int) -> int:
        nonlocal peak
        data = answer(picture(bytes(size)))
        body = await filled(memory, File(number % 3 * 1000 if number % 4 == 0 else 10**9), data)
        await asyncio.sleep(0)
        peak = max(peak, memory.used)
        reply = await body.read("")
        await asyncio.sleep(0)
        body.close()
        return len(reply.picture)

    async with asyncio.timeout(30):
        assert await asyncio.gather(*(one(number, size) for number, size in enumerate(sizes))) == sizes
    assert memory.used == 0


async def test_a_cancelled_wait_for_memory_does_not_block_the_next() -> None:
    memory = ReplyMemory(len(REPLY))
    first = await filled(memory, File())
    waiting = [await filled(memory, File()) for _ in range(2)]
    readings = [asyncio.create_task(body.read("")) for body in waiting]
    await asyncio.sleep(0)
    readings[0].cancel()
    first.close()
    assert (await readings[1]).picture
    for body in waiting:
        body.close()
    await until(lambda: memory.used == 0)


async def test_a_body_can_be_reused() -> None:
    memory = ReplyMemory(5000)
    body = await filled(memory, File())
    body.clear()
    assert (body.size, memory.used) == (0, 0)
    await body.add(b"{}")
    assert (body.size, body.spilled) == (2, 0)
