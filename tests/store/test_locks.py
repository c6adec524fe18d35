"""Advisory locks as on network file systems, and file systems without them."""

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import SettingsError
from service.store.holds import held
from service.store.layout import AREAS, Layout, raw_key, request_id, upload_key
from service.store.local import LocalStore
from service.store.sweeping import sweep
from tests.conftest import Serve
from tests.helpers import picture_bytes, upload

on_one_loop = pytest.mark.asyncio(loop_scope="session")
RAW = raw_key(request_id(), 1, ".png")
UPLOAD = upload_key(request_id(), "image", "png")
Flock = Callable[[int, int], None]


def like_nfs(flock: Flock = fcntl.flock) -> Flock:
    """Like Linux NFS, which implements flock by byte-range locks: a descriptor must be open for what it locks."""

    def locked(descriptor: int, operation: int) -> None:
        access = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        if (operation & fcntl.LOCK_EX and access == os.O_RDONLY) or (
            operation & fcntl.LOCK_SH and access == os.O_WRONLY
        ):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(descriptor, operation)

    return locked


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setattr(fcntl, "flock", like_nfs())
    store = LocalStore(Layout({area: tmp_path / area for area in AREAS}))
    store.prepare()
    return store


async def test_files_in_use_are_held_on_nfs_and_swept_afterwards(store: LocalStore) -> None:
    async with held() as hold, store.space(4096) as space:
        await store.write(RAW, b"picture", hold, space)
        (await store.create(UPLOAD, hold)).close()
        keys = [RAW, UPLOAD, *await store.reserve(2, hold)]
        for key in keys:
            os.utime(store.local(key), (0, 0))
        assert sum(sweep(root, 1).in_use for root in store.layout.roots.values()) == len(keys)
    swept = [sweep(root, 1) for root in store.layout.roots.values()]
    assert sum(done.files for done in swept) == len(keys)
    assert [error for done in swept for error in done.errors] == []


async def test_a_base_that_may_only_be_read_is_held_on_nfs(store: LocalStore) -> None:
    base = store.layout.roots["output"] / "base.png"
    base.write_bytes(b"base")
    base.chmod(0o444)
    os.utime(base, (0, 0))
    async with held() as hold:
        await store.hold_path(str(base), hold)
        assert sweep(base.parent, 1).in_use == 1


@on_one_loop
async def test_a_request_with_an_upload_is_answered_on_nfs(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", like_nfs())
    service = await serve()
    assert (await service.thumbnails(upload(picture_bytes()))).status == 200
    assert (await service.exports(upload(picture_bytes()))).status == 200


async def test_a_base_on_a_file_system_without_locks_is_used_all_the_same(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base = tmp_path / "base.png"
    base.write_bytes(b"base")
    monkeypatch.setattr(fcntl, "flock", no_locks)
    async with held() as hold:
        await store.hold_path(str(base), hold)


def test_a_file_that_may_only_be_read_is_swept_on_a_local_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").touch()
    os.utime(tmp_path / "old", (0, 0))
    real = os.open

    def refuse(path: str, flags: int, *args: int, dir_fd: int | None = None) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, flags, *args, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)
    assert sweep(tmp_path, 1).files == 1


def no_locks(descriptor: int, operation: int) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def without_effect(descriptor: int, operation: int) -> None:
    pass


@pytest.mark.parametrize("flock", [no_locks, without_effect])
def test_an_area_whose_locks_do_not_work_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flock: Flock
) -> None:
    monkeypatch.setattr(fcntl, "flock", flock)
    store = LocalStore(Layout({area: tmp_path / area for area in AREAS}))
    with pytest.raises(SettingsError, match=r"UPLOADS_DIR=.*STORAGE_DIR.*cannot be locked"):
        store.prepare()
    assert list((tmp_path / "uploads").iterdir()) == []


def test_a_storage_whose_locks_do_not_work_stops_the_start_with_one_line(tmp_path: Path) -> None:
    code = "import fcntl; fcntl.flock = lambda *_: None; from service.cli import main; main(['serve'])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "STORAGE_DIR": str(tmp_path), "PORT": "0"},
    )  # fmt: skip
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "UPLOADS_DIR" in line
    assert "locked" in line
