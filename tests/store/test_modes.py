"""Permissions of the files and directories that the service creates."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from service.emulator.responders import PendingRequest, one_picture
from service.store.holds import held
from service.store.layout import AREAS, PRIVATE, SHARED, Layout, Modes, raw_key, request_id, upload_key
from service.store.local import LocalStore
from tests.conftest import Serve
from tests.helpers import QuickEmulator, picture_bytes, upload

on_one_loop = pytest.mark.asyncio(loop_scope="session")
MODES = {None: PRIVATE, "private": PRIVATE, "shared": SHARED}


@pytest.fixture(params=[0o022, 0, 0o077, 0o777], ids=["022", "0", "077", "777"])
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def modes(folder: Path) -> set[int]:
    return {mode(path) for path in folder.iterdir()}


@pytest.mark.usefixtures("_umask")
@pytest.mark.parametrize("wanted", [PRIVATE, SHARED])
async def test_what_the_store_makes_has_its_mode_whatever_the_umask(tmp_path: Path, wanted: Modes) -> None:
    store = LocalStore(Layout({area: tmp_path / "new" / area for area in AREAS}), wanted)
    store.prepare()
    async with held() as hold, store.space(4096), store.space(10) as space:
        await store.reserve(1, hold)
        await store.write(raw_key(request_id(), 1, ".png"), b"picture", hold, space)
        await store.write(raw_key(request_id(), 1, ".bin"), b"picture", hold)
        (await store.create(upload_key(request_id(), "image", "png"), hold)).close()
        files = [mode(path) for root in store.layout.roots.values() for path in root.iterdir()]
    assert files == [wanted.file] * 5
    assert {mode(root) for root in [tmp_path / "new", *store.layout.roots.values()]} == {wanted.directory}


@pytest.mark.parametrize("wanted", [PRIVATE, SHARED])
def test_directories_that_exist_keep_their_mode(tmp_path: Path, wanted: Modes) -> None:
    store = LocalStore(Layout({area: tmp_path / area for area in AREAS}), wanted)
    for root in store.layout.roots.values():
        root.mkdir()
        root.chmod(0o750)
    store.prepare()
    assert {mode(root) for root in store.layout.roots.values()} == {0o750}


@on_one_loop
@pytest.mark.usefixtures("_umask")
@pytest.mark.parametrize("setting", MODES)
async def test_every_file_of_a_request_is_private_unless_storage_is_shared(
    serve: Serve, tmp_path: Path, setting: str | None
) -> None:
    seen: set[int] = set()

    async def look_and_draw(call: PendingRequest) -> web.StreamResponse:
        for area in ("uploads", "temp"):
            seen.update(await asyncio.to_thread(modes, tmp_path / "storage" / area))
        return await one_picture(call)

    service = await serve(QuickEmulator(then=look_and_draw), storage_mode=setting)
    assert (await service.thumbnails(upload(picture_bytes()))).status == 200
    assert (await service.exports(upload(picture_bytes()))).status == 200
    for area in ("generated", "output"):
        seen |= await asyncio.to_thread(modes, tmp_path / "storage" / area)
    assert seen == {MODES[setting].file}
    storage = tmp_path / "storage"
    assert {mode(storage), *(mode(storage / area) for area in AREAS)} == {MODES[setting].directory}
    ledger = storage / "ledger"
    assert {mode(path) for path in (ledger, ledger / "owners")} == {PRIVATE.directory}
    assert {mode(path) for path in ledger.rglob("*") if path.is_file()} == {PRIVATE.file}
