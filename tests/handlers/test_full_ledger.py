"""A ledger whose disk is full: nothing is sent, nothing is lost, and it goes on when there is space."""

import asyncio
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.handlers.test_idempotency import JPEG, Gate, keyed
from tests.helpers import QuickEmulator, assert_problem, fill_up, small_disk, until, until_async

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_full_disk_refuses_new_requests_and_loses_no_picture(serve: Serve, tmp_path: Path) -> None:
    gate = Gate()
    with small_disk(tmp_path / "disk", 8) as disk:
        service = await serve(QuickEmulator(then=gate), ledger_dir=disk / "ledger")
        gate.open.set()
        export = (await service.thumbnails(JPEG)).json["variations"][0]["exports"]["jpeg"]
        gate.open.clear()
        running = asyncio.create_task(service.thumbnails(JPEG, headers=keyed("a")))
        await until(lambda: service.emulator.in_flight == 1)
        await asyncio.to_thread(fill_up, disk)
        gate.open.set()

        [error] = assert_problem(await running, 507, "storage_full")["errors"]
        assert (error["code"], error["billed"], error["retryable"]) == ("storage_full", True, False)
        assert error["storage_path"].removeprefix("generated/") in service.area("generated")
        with service.nothing_spent_or_left():
            assert_problem(await service.thumbnails(JPEG), 507, "storage_full")
        [status, _] = (await service.get("/api/thumbnails")).json["requests"]
        assert status["calls"][0]["state"] == "sending"
        assert_problem(await service.get("/readyz"), 503, "not_ready", "ledger")
        assert (await service.get("/healthz")).status == 200
        assert (await service.get(export["url"])).status == 200

        (disk / "of-another-process").unlink()

        async def ready() -> bool:
            return (await service.get("/readyz")).status == 200

        await until_async(ready)
        replay = await service.thumbnails(JPEG, headers=keyed("a"))
        assert replay.headers["Idempotency-Replayed"] == "true"
        assert replay.json["variations"][0]["storage_path"] == error["storage_path"]
        assert (await service.thumbnails(JPEG)).status == 200
        assert service.emulator.requests == 3
