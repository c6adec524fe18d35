"""The store on a local disk: durable writes, preallocation, holds, cancelled requests and full disks."""

import asyncio
import errno
import fcntl
import gc
import hashlib
import os
import shutil
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from service.errors import NotFound, SettingsError, StorageFull, StorageUnavailable
from service.store import disk as store_disk
from service.store.holds import Hold, held
from service.store.layout import (
    AREAS,
    EXPORT_NAME,
    Area,
    Layout,
    export_key,
    export_stem,
    raw_key,
    request_id,
    temp_key,
)
from service.store.local import LocalStore, StoredFile
from service.store.sweeping import sweep
from tests.helpers import fill_up, open_descriptors, small_disk, until

KEY = "output/export_" + "a" * 32 + ".png"
RAW = raw_key(request_id(), 1, ".png")
MIB = 1024 * 1024


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(Layout({area: tmp_path / area for area in AREAS}))
    store.prepare()
    return store


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LocalStore]:
    """A store on a disk of 8 MiB."""
    with small_disk(tmp_path / "disk", 8) as root:
        store = LocalStore(Layout({area: root / area for area in AREAS}))
        store.prepare()
        yield store


def files_in(store: LocalStore) -> list[str]:
    return [f"{area}/{entry.name}" for area in AREAS for entry in store.layout.roots[area].iterdir()]


@pytest.mark.parametrize(
    "key", ["", "output", "output/", "output/../x", "/etc/passwd", "other/x", "output/a/b", "output/.x", "output/a\n",
            "output/a\0b", "output/%2e%2e", "OUTPUT/x", "output/" + "x" * 300],
)  # fmt: skip
def test_nothing_but_a_key_becomes_a_path(store: LocalStore, key: str) -> None:
    with pytest.raises(ValueError, match="not a storage key"):
        store.local(key)


def test_names_are_random_and_well_formed() -> None:
    stems = {export_stem() for _ in range(100)}
    assert len(stems) == 100
    assert all(EXPORT_NAME.fullmatch(export_key(stem, "jpeg").partition("/")[2]) for stem in stems)
    assert raw_key(request_id(), 1, ".png").endswith("_1.png")


async def test_a_written_file_is_whole_held_and_hashed(store: LocalStore) -> None:
    async with held() as hold:
        digest = await store.write(KEY, b"picture", hold)
        os.utime(store.local(KEY), (0, 0))
        assert sweep(Path(store.local(KEY)).parent, 1).in_use == 1
    assert digest == hashlib.sha256(b"picture").hexdigest()
    assert Path(store.local(KEY)).read_bytes() == b"picture"
    assert list(Path(store.local(temp_key())).parent.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EROFS, StorageUnavailable)]
)
async def test_a_failed_write_leaves_nothing_and_names_the_area(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(kind, match="output") as caught:
        await store.write(KEY, b"picture", Hold())
    assert str(store.layout.roots["output"]) not in str(caught.value)
    for area in AREAS:
        assert list(store.layout.roots[area].iterdir()) == []


async def test_preallocated_space_can_be_written_after_the_disk_filled_up(disk: LocalStore) -> None:
    picture = os.urandom(3 * MIB)
    async with held() as hold, disk.space(4 * MIB) as space:
        fill_up(disk.layout.roots["temp"])
        with pytest.raises(StorageFull):
            await disk.write(KEY, picture, hold)
        await disk.write(RAW, picture, hold, space)
        assert Path(disk.local(RAW)).read_bytes() == picture
        # The rest of the space is free again.
        await disk.write(KEY, picture[:MIB], hold)
    assert sorted(files_in(disk)) == sorted([RAW, KEY, "temp/of-another-process"])


async def test_too_much_space_is_refused_and_leaves_nothing(disk: LocalStore) -> None:
    with pytest.raises(StorageFull, match="generated/"):
        async with disk.space(9 * MIB):
            pass
    assert files_in(disk) == []


async def test_a_picture_whose_directory_takes_no_more_names_stays_in_temp(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **descriptors: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "rename", refuse)
    async with held() as hold, store.space(MIB) as space:
        with pytest.raises(StorageFull, match="generated/") as caught:
            await store.write(RAW, b"picture", hold, space)
    assert caught.value.storage_path == space.key
    assert files_in(store) == [space.key]
    assert Path(store.local(space.key)).read_bytes() == b"picture"


async def test_a_picture_larger_than_its_space_is_stored_whole(store: LocalStore) -> None:
    picture = os.urandom(100_000)
    async with held() as hold, store.space(4096) as space:
        digest = await store.write(RAW, picture, hold, space)
    assert digest == hashlib.sha256(picture).hexdigest()
    assert Path(store.local(RAW)).read_bytes() == picture
    assert files_in(store) == [RAW]


async def test_a_picture_larger_than_its_space_is_cut_and_named_when_the_disk_is_full(disk: LocalStore) -> None:
    picture = os.urandom(3 * MIB)
    async with held() as hold, disk.space(MIB) as space:
        fill_up(disk.layout.roots["temp"])
        with pytest.raises(StorageFull, match=f"only {MIB} of {3 * MIB} bytes are kept") as caught:
            await disk.write(RAW, picture, hold, space)
        assert caught.value.storage_path == RAW
        assert Path(disk.local(RAW)).read_bytes() == picture[:MIB]
        os.utime(disk.local(RAW), (0, 0))
        assert sweep(disk.layout.roots["generated"], 1).in_use == 1
    assert sorted(files_in(disk)) == sorted([RAW, "temp/of-another-process"])


async def test_space_that_was_not_needed_is_given_back(disk: LocalStore) -> None:
    async with disk.space(6 * MIB) as space:
        os.utime(disk.local(space.key), (0, 0))
        assert sweep(disk.layout.roots["temp"], 1).in_use == 1
    assert files_in(disk) == []
    async with disk.space(6 * MIB):
        pass


async def test_preallocated_space_still_counts_as_free(disk: LocalStore) -> None:
    before = await disk.free_bytes()
    async with held() as hold, AsyncExitStack() as stack:
        for _ in range(3):
            space = await stack.enter_async_context(disk.space(2 * MIB))
        assert await disk.free_bytes() == await disk.probe() == before
        await disk.write(RAW, b"picture", hold, space)
        assert await disk.free_bytes() == before - 4096
    assert await disk.free_bytes() == before - 4096


async def test_space_that_appears_while_free_bytes_are_counted_counts_once(
    disk: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, loop, statvfs = await disk.free_bytes(), asyncio.get_running_loop(), os.statvfs
    async with AsyncExitStack() as stack:

        def look_and_set_aside(path: Path) -> os.statvfs_result:
            seen = statvfs(path)
            asyncio.run_coroutine_threadsafe(stack.enter_async_context(disk.space(MIB)), loop).result(20)
            return seen

        monkeypatch.setattr(os, "statvfs", look_and_set_aside)
        assert await disk.free_bytes() <= before


async def test_space_that_goes_before_free_bytes_are_counted_counts_once(
    disk: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, loop, statvfs = await disk.free_bytes(), asyncio.get_running_loop(), os.statvfs
    async with AsyncExitStack() as stack:
        spaces = [await stack.enter_async_context(AsyncExitStack()) for _ in AREAS]
        for space in spaces:
            await space.enter_async_context(disk.space(MIB))

        def give_back_and_look(path: Path) -> os.statvfs_result:
            asyncio.run_coroutine_threadsafe(spaces.pop().aclose(), loop).result(20)
            return statvfs(path)

        monkeypatch.setattr(os, "statvfs", give_back_and_look)
        assert await disk.free_bytes() <= before


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
async def test_a_file_system_that_cannot_preallocate_is_used_all_the_same(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    async with held() as hold, store.space(4 * MIB) as space:
        assert Path(store.local(space.key)).stat().st_size == 0
        await store.write(RAW, b"picture", hold, space)
    assert files_in(store) == [RAW]


async def cancelled_while_a_file_is_made(request: Coroutine[None, None, None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancel the request after its file was created and before it is locked."""
    made, went_away, flock = threading.Event(), threading.Event(), fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        made.set()
        went_away.wait(20)
        flock(descriptor, operation)

    before = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", late)
        task = asyncio.create_task(request)
        assert await asyncio.to_thread(made.wait, 20)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        went_away.set()
        await until(lambda: open_descriptors() <= before, 5)


async def test_space_for_a_request_that_was_cancelled_is_given_back(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def request() -> None:
        async with store.space(4096):
            pass

    await store.probe()
    await cancelled_while_a_file_is_made(request(), monkeypatch)
    await until(lambda: files_in(store) == [], 5)


async def test_a_write_goes_on_when_its_request_is_cancelled(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, went_away, fsync = threading.Event(), threading.Event(), os.fsync

    def late(descriptor: int) -> None:
        begun.set()
        went_away.wait(20)
        fsync(descriptor)

    async def request() -> None:
        async with held() as hold, store.space(4096) as space:
            await store.write(RAW, b"picture", hold, space)

    monkeypatch.setattr(os, "fsync", late)
    task = asyncio.create_task(request())
    assert await asyncio.to_thread(begun.wait, 20)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    went_away.set()
    await until(lambda: files_in(store) == [RAW], 5)


@pytest.mark.parametrize("written", [False, True])
async def test_a_request_that_is_cancelled_while_every_disk_thread_is_busy_loses_and_leaves_nothing(
    store: LocalStore, written: bool
) -> None:
    threads, ready, free = ThreadPoolExecutor(1), asyncio.Event(), threading.Event()
    asyncio.get_running_loop().set_default_executor(threads)

    async def request() -> None:
        async with held() as hold, store.space(4096) as space:
            threads.submit(free.wait, 20)
            ready.set()
            if written:
                await store.write(RAW, b"picture", hold, space)

    task = asyncio.create_task(request())
    await ready.wait()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    free.set()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: files_in(store) == [RAW] * written, 5)


def no_descriptor_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **options: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    for name in ("open", "dup", "pipe", "scandir", "listdir"):
        monkeypatch.setattr(os, name, refuse)


async def test_preallocated_space_is_written_without_another_descriptor(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with held() as hold, store.space(4096) as space:
        with monkeypatch.context() as patch:
            no_descriptor_left(patch)
            with pytest.raises(StorageUnavailable):
                await store.write(KEY, b"picture", hold)
            await store.write(RAW, b"picture", hold, space)
        os.utime(store.local(RAW), (0, 0))
        assert sweep(store.layout.roots["generated"], 1).in_use == 1
    assert files_in(store) == [RAW]


@pytest.mark.parametrize("area", AREAS)
async def test_an_area_that_vanished_is_unavailable_and_used_again_when_it_is_back(
    store: LocalStore, area: Area
) -> None:
    root = store.layout.roots[area]
    async with held() as hold:
        await store.write(KEY, b"before", hold)
        await store.write(RAW, b"before", hold)
    aside = root.rename(root.with_suffix(".aside"))
    with pytest.raises(StorageUnavailable, match=f"{area}/"):
        await store.probe()
    if area in ("output", "generated"):
        with pytest.raises(StorageUnavailable, match=f"{area}/"):
            await store.open(f"{area}/export_{'a' * 32}.png")
    root.mkdir()
    async with held() as hold:
        await store.write(KEY, b"another", hold)
        await store.write(RAW, b"another", hold)
    assert Path(store.local(KEY)).read_bytes() == Path(store.local(RAW)).read_bytes() == b"another"
    shutil.rmtree(root)
    aside.rename(root)
    await store.probe()
    file = await store.open(KEY)
    assert file.body.read() == (b"before" if area == "output" else b"another")
    file.close()


async def test_a_picture_in_flight_is_kept_when_its_areas_are_replaced(store: LocalStore) -> None:
    async with held() as hold, store.space(4096) as space:
        for area in ("temp", "generated"):
            root = store.layout.roots[area]
            root.rename(root.with_suffix(".aside"))
            root.mkdir()
        await store.write(RAW, b"picture", hold, space)
    assert files_in(store) == [RAW]


async def test_descriptors_of_the_areas_are_kept_and_closed_with_the_store(tmp_path: Path) -> None:
    before = open_descriptors()
    store = LocalStore(Layout({area: tmp_path / area for area in AREAS}))
    store.prepare()
    for _ in range(3):
        await store.probe()
    assert open_descriptors() <= before + len(AREAS) + 1  # and a disk thread's
    del store
    gc.collect()
    assert open_descriptors() <= before + 1


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOENT, NotFound), (errno.ELOOP, NotFound), (errno.ENOTDIR, NotFound), (errno.EMFILE, StorageUnavailable),
     (errno.ENFILE, StorageUnavailable), (errno.EACCES, StorageUnavailable), (errno.EIO, StorageUnavailable),
     (errno.ESTALE, StorageUnavailable), (errno.ENOMEM, StorageUnavailable)],
)  # fmt: skip
async def test_only_errors_that_mean_absence_are_not_found(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    async with held() as hold:
        await store.write(KEY, b"picture", hold)
    real = os.open

    def refuse(path: Path | str, *args: Any, **options: Any) -> int:
        if str(path).endswith(".png"):
            raise OSError(number, os.strerror(number))
        return real(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        patch.setattr(store_disk, "WAIT_SECONDS", 0)
        with pytest.raises(kind):
            await store.open(KEY)
        with pytest.raises(kind):
            await store.hold_path(store.local(KEY), Hold())


async def test_publish_is_all_or_nothing(store: LocalStore) -> None:
    other = KEY.replace("png", "webp")
    async with held() as hold:
        first, second = await store.reserve(2, hold)
        await store.remove([second])
        with pytest.raises(StorageUnavailable):
            await store.publish([(first, KEY), (second, other)])
    assert list(store.layout.roots["output"].iterdir()) == []


async def test_reserved_files_are_held(store: LocalStore) -> None:
    async with held() as hold:
        for key in await store.reserve(3, hold):
            os.utime(store.local(key), (0, 0))
        assert sweep(store.layout.roots["temp"], 1).in_use == 3
    assert sweep(store.layout.roots["temp"], 1).files == 3


async def test_files_made_for_a_request_that_was_cancelled_are_removed(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def request() -> None:
        async with held() as hold:
            await store.reserve(1, hold)

    await store.probe()
    await cancelled_while_a_file_is_made(request(), monkeypatch)
    await until(lambda: files_in(store) == [], 5)


async def test_open_follows_no_link_and_opens_only_files(store: LocalStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    place = Path(store.local(KEY))
    place.symlink_to(secret)
    with pytest.raises(NotFound):
        await store.open(KEY)
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(NotFound):
        await store.open(KEY)
    place.unlink()
    place.mkdir()
    with pytest.raises(NotFound):
        await store.open(KEY)


async def test_what_cannot_be_removed_is_left_to_the_sweep(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "unlink", refuse)
    await store.remove([KEY])


async def test_an_open_file_outlives_its_name(store: LocalStore) -> None:
    async with held() as hold:
        await store.write(KEY, b"picture", hold)
    file = await store.open(KEY)
    await store.remove([KEY])
    assert file.body.read() == b"picture"
    file.close()


async def test_a_file_opened_for_a_request_that_was_cancelled_is_closed(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with held() as hold:
        await store.write(KEY, b"picture", hold)
    begun, went_away, closed = threading.Event(), threading.Event(), asyncio.Event()
    pread, close = os.pread, StoredFile.close

    def late(descriptor: int, size: int, offset: int) -> bytes:
        begun.set()
        went_away.wait(20)
        return pread(descriptor, size, offset)

    def tell(self: StoredFile) -> None:
        close(self)
        closed.set()

    monkeypatch.setattr(os, "pread", late)
    monkeypatch.setattr(StoredFile, "close", tell)
    task = asyncio.create_task(store.open(KEY, whole=100))
    assert await asyncio.to_thread(begun.wait, 20)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    went_away.set()
    async with asyncio.timeout(20):
        await closed.wait()


async def test_the_etag_changes_with_the_file(store: LocalStore) -> None:
    tags = set()
    for content in (b"one", b"two"):
        async with held() as hold:
            await store.write(KEY, content, hold)
        file = await store.open(KEY)
        tags.add(file.etag)
        file.close()
    assert len(tags) == 2
    assert all(tag.startswith('"') for tag in tags)


async def test_probe_names_the_area_that_cannot_be_written(store: LocalStore) -> None:
    await store.probe()
    store.layout.roots["generated"].rmdir()
    with pytest.raises(StorageUnavailable, match="generated/"):
        await store.probe()


async def test_holding_a_file_waits_for_a_sweep_and_notices_its_removal(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with held() as hold:
        await store.write(KEY, b"picture", hold)
    path = store.local(KEY)
    real = fcntl.flock

    def sweep_first(descriptor: int, operation: int) -> None:
        Path(path).unlink()
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", sweep_first)
    async with held() as hold:
        with pytest.raises(NotFound):
            await store.hold_path(path, hold)


async def test_readers_see_whole_files_only(store: LocalStore) -> None:
    contents = [bytes([number]) * 100_000 for number in range(20)]
    seen: list[bytes] = []

    async def read(writer: asyncio.Task[Any]) -> None:
        while not writer.done():
            try:
                file = await store.open(KEY)
            except NotFound:
                continue
            seen.append(file.body.read())
            file.close()

    async def write() -> None:
        for content in contents:
            async with held() as hold:
                await store.write(KEY, content, hold)

    writer = asyncio.create_task(write())
    await asyncio.gather(writer, read(writer))
    assert set(seen) <= set(contents)


def test_areas_inside_each_other_are_refused(tmp_path: Path) -> None:
    areas = {area: tmp_path / area for area in AREAS} | {"output": tmp_path / "temp" / "output"}
    with pytest.raises(SettingsError, match="OUTPUT_DIR"):
        LocalStore(Layout(areas)).prepare()


def test_temp_on_another_file_system_is_refused(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.fail("this test needs two file systems")
    temp = other / f"image-export-{os.getpid()}"
    try:
        with pytest.raises(SettingsError, match="same file system"):
            LocalStore(Layout({area: tmp_path / area for area in AREAS} | {"temp": temp})).prepare()
    finally:
        temp.rmdir()


def test_an_area_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / "uploads").write_text("a file")
    with pytest.raises(SettingsError, match=r"UPLOADS_DIR.*STORAGE_DIR"):
        LocalStore(Layout({area: tmp_path / area for area in AREAS})).prepare()
