"""File descriptors: counting them, and the reserves for more important uses."""

import asyncio
import errno
import os
import resource
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from service.errors import OutOfDescriptors, StorageUnavailable
from service.store import descriptors, disk, hot
from service.store.descriptors import ACCEPT, BEGIN, CACHE, CONNECT, FINISH
from service.store.holds import Hold, held
from service.store.hot import MIN_BYTES, HotFiles
from service.store.layout import AREAS, Layout, upload_key
from service.store.local import LocalStore, StoredFile
from tests.helpers import open_descriptors

KEY = "output/export_" + "a" * 32 + ".png"
UPLOAD = upload_key("req_" + "0" * 32, "image", "png")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(Layout({area: tmp_path / area for area in AREAS}))
    store.prepare()
    return store


def test_open_descriptors_are_not_free() -> None:
    before = descriptors.free()
    taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]
    assert descriptors.free() == before - 5
    for descriptor in taken:
        os.close(descriptor)
    assert descriptors.free() == before


def test_uses_that_are_more_easily_refused_leave_a_larger_reserve() -> None:
    assert descriptors.spare(0) == descriptors.free()
    assert CACHE > CONNECT > BEGIN > ACCEPT > FINISH > 0


def test_reserves_shrink_with_a_low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (128, 128))
    assert descriptors.spare(BEGIN) == descriptors.free() - BEGIN // 2


def test_an_infinite_limit_leaves_many_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert descriptors.spare(BEGIN) > 100_000


def short_of(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """Have so many descriptors free, of 256."""
    monkeypatch.setattr(disk, "spare", lambda leave: free - leave)
    monkeypatch.setattr(hot, "spare", lambda leave: free - leave)
    monkeypatch.setattr(hot, "limit", lambda: 256)


async def space(store: LocalStore) -> None:
    async with store.space(10):
        pass


@pytest.mark.parametrize(
    "begin", [LocalStore.probe, lambda store: store.open(KEY), lambda store: store.create(UPLOAD, Hold()), space]
)
async def test_new_work_is_refused_while_descriptors_are_short(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, begin: Callable[[LocalStore], Awaitable[Any]]
) -> None:
    short_of(monkeypatch, BEGIN)
    with pytest.raises(StorageUnavailable, match="file descriptors are free"):
        await begin(store)
    assert not any(list(root.iterdir()) for root in store.layout.roots.values())


async def test_work_that_was_begun_waits_for_descriptors(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base = tmp_path / "base.png"
    base.write_bytes(b"base")
    async with held() as hold:
        with monkeypatch.context() as patch:
            short_of(patch, FINISH)
            reserving = asyncio.create_task(store.reserve(3, hold))
            holding = asyncio.create_task(store.hold_path(str(base), hold))
            await asyncio.sleep(3 * disk.WAIT_STEP_SECONDS)
            assert (reserving.done(), holding.done()) == (False, False)
            assert list(store.layout.roots["temp"].iterdir()) == []
        await asyncio.gather(reserving, holding)
        assert len(list(store.layout.roots["temp"].iterdir())) == 3


async def test_files_are_reserved_together_or_not_at_all(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real, opened = os.open, 0

    def refuse_the_third(*args: Any, **options: Any) -> int:
        nonlocal opened
        opened += 1
        if opened == 3:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(*args, **options)

    await store.probe()
    before = open_descriptors()
    monkeypatch.setattr(os, "open", refuse_the_third)
    async with held() as hold:
        keys = await store.reserve(3, hold)
        assert opened == 6
        assert sorted(path.name for path in store.layout.roots["temp"].iterdir()) == sorted(
            key.partition("/")[2] for key in keys
        )
    assert open_descriptors() <= before


async def test_waiting_for_descriptors_has_a_limit(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    short_of(monkeypatch, 0)
    monkeypatch.setattr(disk, "WAIT_SECONDS", 0)
    with pytest.raises(OutOfDescriptors):
        await store.reserve(1, Hold())


async def opened(store: LocalStore, number: int) -> StoredFile:
    key = f"output/{number}.png"
    Path(store.local(key)).write_bytes(b"x")
    return await store.open(key, whole=MIN_BYTES)


async def test_cached_files_have_a_bounded_share_of_the_descriptors(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "limit", lambda: 5 * hot.SHARE)
    cache = HotFiles(1000 * MIN_BYTES)
    files = [await opened(store, number) for number in range(9)]
    for number, file in enumerate(files):
        cache.keep(str(number), file)
    assert [file.body.closed for file in files] == [True] * 4 + [False] * 5
    cache.close()


async def test_cached_files_are_closed_while_descriptors_are_short(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = HotFiles(1000 * MIN_BYTES)
    files = [await opened(store, number) for number in range(5)]
    for number, file in enumerate(files):
        cache.keep(str(number), file)
    short_of(monkeypatch, CACHE - 2)
    cache.free_descriptors()
    assert [file.body.closed for file in files] == [True] * 2 + [False] * 3
    short_of(monkeypatch, -1000)
    cache.free_descriptors()
    assert all(file.body.closed for file in files)


async def test_all_disk_threads_run_from_the_start() -> None:
    before = set(threading.enumerate())
    await disk.start_disk_threads()
    assert len(set(threading.enumerate()) - before) == disk.DISK_THREADS


async def test_a_disk_thread_that_cannot_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real, started = threading.Thread.start, 0

    def refuse_the_tenth(thread: threading.Thread) -> None:
        nonlocal started
        started += 1
        if started == 10:
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_the_tenth)
    with pytest.raises(OSError, match="disk threads cannot be started"):
        await disk.start_disk_threads()
