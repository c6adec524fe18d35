"""The LRU cache of open files: hits while a file is unchanged, eviction, and closed descriptors."""

import asyncio
import secrets
from pathlib import Path

import pytest

from service.store.hot import MIN_BYTES, HotFiles
from service.store.layout import AREAS, Layout
from service.store.local import LocalStore, StoredFile

DATA = b"x" * MIN_BYTES


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(Layout({area: tmp_path / area for area in AREAS}))
    store.prepare()
    return store


async def opened(store: LocalStore, key: str, data: bytes = DATA) -> StoredFile:
    Path(store.local(key)).write_bytes(data)
    return await store.open(key, whole=len(DATA))


def new_key() -> str:
    return f"output/export_{secrets.token_hex(16)}.png"


async def test_small_files_come_with_their_data(store: LocalStore) -> None:
    key = new_key()
    file = await opened(store, key)
    large = await opened(store, new_key(), DATA + b"x")
    assert (file.data, large.data) == (DATA, None)
    file.close()
    large.close()


async def test_a_cached_file_is_found(store: LocalStore) -> None:
    hot, key = HotFiles(len(DATA)), new_key()
    assert hot.get(key) is None
    file = await opened(store, key)
    hot.keep(key, file)
    assert hot.get(key) is file
    hot.close()
    assert file.body.closed
    assert hot.get(key) is None


@pytest.mark.parametrize("change", ["removed", "replaced", "renamed", "written"])
async def test_a_file_that_changed_is_a_miss(store: LocalStore, change: str) -> None:
    hot, key, other = HotFiles(len(DATA)), new_key(), new_key()
    path = Path(store.local(key))
    file = await opened(store, key)
    hot.keep(key, file)
    # The timestamps of the file system are too coarse to tell two changes apart that follow at once.
    await asyncio.sleep(0.02)
    Path(store.local(other)).write_bytes(DATA)
    match change:
        case "removed":
            path.unlink()
        case "replaced":
            Path(store.local(other)).rename(path)
        case "renamed":
            path.rename(path.with_name("elsewhere"))
        case "written":
            path.write_bytes(b"y")
    found = hot.get(key)
    assert found is None
    assert file.body.closed
    hot.close()


async def test_the_least_recently_used_file_is_evicted(store: LocalStore) -> None:
    hot, keys = HotFiles(2 * len(DATA)), [new_key() for _ in range(3)]
    files = [await opened(store, key) for key in keys]
    hot.keep(keys[0], files[0])
    hot.keep(keys[1], files[1])
    assert hot.get(keys[0])
    hot.keep(keys[2], files[2])
    assert [hot.get(key) for key in keys] == [files[0], None, files[2]]
    assert [file.body.closed for file in files] == [False, True, False]
    hot.close()


async def test_tiny_files_count_as_much_as_small_ones(store: LocalStore) -> None:
    hot = HotFiles(4 * MIN_BYTES)
    files = [await opened(store, new_key(), b"x") for _ in range(9)]
    for number, file in enumerate(files):
        hot.keep(f"output/{number}.png", file)
    assert sum(not file.body.closed for file in files) == 4
    hot.close()


async def test_without_memory_nothing_is_cached(store: LocalStore) -> None:
    hot, key = HotFiles(0), new_key()
    file = await opened(store, key)
    hot.keep(key, file)
    assert hot.get(key) is None
    assert file.body.closed
    assert file.data == DATA


async def test_removed_files_are_closed(store: LocalStore) -> None:
    hot = HotFiles(2 * len(DATA))
    kept, swept = new_key(), new_key()
    files = {key: await opened(store, key) for key in (kept, swept)}
    for key, file in files.items():
        hot.keep(key, file)
    await store.remove([swept])
    hot.forget_removed()
    assert (files[kept].body.closed, files[swept].body.closed) == (False, True)
    hot.close()
