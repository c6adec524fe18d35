"""Spill files, for replies that do not fit into memory."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from service.errors import StorageUnavailable
from service.store.descriptors import free
from service.store.layout import AREAS, Layout, request_id, spill_key
from service.store.scratch import Scratch
from service.store.spill import SpillFile, spill_file
from service.store.sweeping import sweep
from tests.helpers import small_disk


def scratch_in(folder: Path) -> Scratch:
    for area in AREAS:
        (folder / area).mkdir()
    scratch = Scratch(Layout({area: folder / area for area in AREAS}))
    assert scratch._directories["temp"], "open from now on"
    return scratch


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return scratch_in(tmp_path)


def descriptors() -> int:
    free()  # keeps a descriptor open from its first call on
    return len(os.listdir("/proc/self/fd"))


async def test_a_spill_file_exists_before_it_is_needed_and_is_removed_afterwards(scratch: Scratch) -> None:
    async with spill_file(scratch, spill_key(request_id(), 2)):
        key, before = spill_key(request_id(), 1), descriptors() - 1
    async with spill_file(scratch, key) as file:
        assert scratch.layout.path(key).stat().st_size == 0
        assert file.write(b"abcdef", 0) == 6
        assert file.write(b"ghi", 6) == 3
        file.sync()
        assert file.read(8) == b"abcdefgh"
        os.utime(scratch.layout.path(key), (0, 0))
        assert sweep(scratch.layout.roots["temp"], 1).in_use == 1
    assert not scratch.layout.path(key).exists()
    assert descriptors() <= before


async def test_a_spill_file_that_was_renamed_stays(scratch: Scratch) -> None:
    key = spill_key(request_id(), 1)
    async with spill_file(scratch, key) as file:
        file.write(b"abc", 0)
        scratch.layout.path(key).rename(scratch.layout.roots["generated"] / "kept.reply")
    assert (scratch.layout.roots["generated"] / "kept.reply").read_bytes() == b"abc"


async def test_a_missing_directory_is_an_error_when_the_file_is_opened(scratch: Scratch) -> None:
    scratch.layout.roots["temp"].rmdir()
    before = descriptors()
    with pytest.raises(StorageUnavailable, match=r"^temp/"):
        async with spill_file(scratch, spill_key(request_id(), 1)):
            raise AssertionError
    assert descriptors() <= before


async def test_a_cancelled_opening_leaves_nothing(scratch: Scratch) -> None:
    key, before = spill_key(request_id(), 1), descriptors()

    async def use() -> None:
        async with spill_file(scratch, key):
            await asyncio.sleep(60)

    for _ in range(20):
        task = asyncio.create_task(use())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(20):
        while scratch.layout.path(key).exists() or descriptors() > before:
            await asyncio.sleep(0.01)


async def test_closing_waits_for_what_is_being_written(scratch: Scratch) -> None:
    file = SpillFile(await scratch.make(spill_key(request_id(), 1)))
    results: list[int] = []
    writers = [threading.Thread(target=lambda: results.append(file.write(bytes(10**7), 0))) for _ in range(3)]
    for writer in writers:
        writer.start()
    file.close()
    for writer in writers:
        writer.join()
    assert set(results) <= {0, 10**7}
    assert file.write(b"late", 0) == 0


async def test_reading_a_file_that_was_cut_is_an_error(scratch: Scratch) -> None:
    file = SpillFile(await scratch.make(spill_key(request_id(), 1)))
    file.write(b"abc", 0)
    with pytest.raises(StorageUnavailable):
        file.read(4)
    file.close()


async def test_a_full_disk_takes_what_it_can(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        file = SpillFile(await scratch_in(disk).make(spill_key(request_id(), 1)))
        assert 0 < file.write(bytes(2 * 1024 * 1024), 0) < 2 * 1024 * 1024
        assert file.write(b"x", 10**6 * 2) == 0
        file.close()
