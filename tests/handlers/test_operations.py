"""Liveness, readiness and metrics."""

import time
from pathlib import Path

from service.scheduler import Clocks
from service.server.keys import SWEEPER
from tests.conftest import Serve
from tests.helpers import assert_problem, make_old, until_async


async def test_readyz_fails_after_three_missed_sweeps_and_metrics_know_the_last(serve: Serve) -> None:
    service = await serve(cleanup_interval_minutes=60)
    begun = time.time()

    async def swept() -> bool:
        return await service.counter("image_export_last_sweep_timestamp_seconds") > begun - 60

    await until_async(swept)
    assert (await service.get("/readyz")).json["checks"]["scheduler"] == "ok"
    service.app[SWEEPER]._clocks = Clocks(monotonic=lambda: time.monotonic() + 3 * 3600 + 60)
    assert_problem(await service.get("/readyz"), 503, "not_ready", "scheduler: no sweep has ended for 3 intervals")


async def test_the_first_sweep_leaves_most_files_to_the_second(serve: Serve, tmp_path: Path) -> None:
    for number in range(10):
        make_old(tmp_path / "storage" / "output" / f"old-{number}", 30)
    service = await serve(cleanup_interval_minutes=0.02)

    async def swept() -> bool:
        return await service.counter("image_export_last_sweep_timestamp_seconds") > 0

    await until_async(swept)
    assert len(service.area("output")) == 10

    async def gone() -> bool:
        return service.area("output") == []

    await until_async(gone)
