"""The pool with real worker processes, which are killed or run into their limits."""

import asyncio
import errno
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures.process import BrokenProcessPool
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from service.imaging.errors import TooCostly, Undecodable
from service.imaging.plan import InspectJob, Picture
from service.logs import JsonFormatter
from service.workers import pool as pool_module
from service.workers import slot as slot_module
from service.workers.launch import Launch
from service.workers.pool import WorkerPool
from service.workers.slot import FIRST_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS, STEADY_SECONDS, Backoff
from service.workers.strikes import POISON_DEATHS, POISON_SECONDS
from tests.helpers import alive, until
from tests.workers.pools import Clock, Pools, workers

ROOT = Path(__file__).parents[2]


async def test_a_job_is_answered_by_its_result_or_its_refusal(pools: Pools, picture: InspectJob) -> None:
    pool = pools()
    assert await pool.run(picture, "a") == Picture(40, 30, "png")
    assert isinstance(await pool.run(InspectJob("/nowhere"), "b"), Undecodable)


async def test_a_killed_idle_worker_is_replaced_unnoticed(pools: Pools, picture: InspectJob) -> None:
    pool = pools()
    await pool.start()
    for _ in range(3):
        os.kill(pool.pids[0], signal.SIGKILL)
        assert isinstance(await pool.run(picture, "a"), Picture)


async def test_an_idle_worker_that_dies_is_replaced_before_the_next_job(pools: Pools, picture: InspectJob) -> None:
    pool = pools(2)
    await pool.start()
    before = pool.pids
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: len(pool.pids) == 2 and not set(pool.pids) & set(before))
    after = pool.pids
    assert isinstance(await pool.run(picture, "a"), Picture)
    assert pool.pids == after
    assert pools.events == ["died", "died"]


async def test_an_idle_worker_that_dies_again_is_restarted_with_backoff_which_no_job_waits_for(
    pools: Pools, picture: InspectJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_module, "FIRST_BACKOFF_SECONDS", 3600)
    monkeypatch.setattr(slot_module, "MAX_BACKOFF_SECONDS", 3600)
    pool = await pool_without_workers(pools)
    # This takes as long as several restarts would.
    for _ in range(5):
        await pools().start()
    assert not pool.alive
    assert isinstance(await pool.run(picture, "a"), Picture)
    pools.clock.now += 3600 + STEADY_SECONDS
    await kill_idle(pool, pools)
    await until(lambda: pool.alive)


async def test_closing_does_not_wait_for_the_backoff(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot_module, "FIRST_BACKOFF_SECONDS", 3600)
    pool = await pool_without_workers(pools)
    async with asyncio.timeout(20):
        await pool.close()


async def pool_without_workers(pools: Pools) -> WorkerPool:
    """A pool whose only worker died while it was idle, and its successor too, so that it backs off."""
    pool = pools()
    await pool.start()
    await kill_idle(pool, pools)
    await until(lambda: pool.alive)
    await kill_idle(pool, pools)
    return pool


async def kill_idle(pool: WorkerPool, pools: Pools) -> None:
    deaths = pools.events.count("died")
    os.kill(pool.pids[0], signal.SIGKILL)
    await until(lambda: pools.events.count("died") > deaths)


def test_the_backoff_grows_up_to_a_limit_and_is_reset_once_a_worker_stays_up() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    seconds = [backoff.next() for _ in range(20)]
    assert seconds[:2] == [0, FIRST_BACKOFF_SECONDS]
    assert all(after == min(2 * before, MAX_BACKOFF_SECONDS) for before, after in pairwise(seconds[1:]))
    assert seconds[-1] == MAX_BACKOFF_SECONDS
    clock.now += MAX_BACKOFF_SECONDS + STEADY_SECONDS
    assert backoff.next() == 0


async def test_a_worker_that_does_not_start_for_long_is_started_when_it_can_be(
    pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pools()
    await pool.start()
    with monkeypatch.context() as patch:
        patch.setattr(Launch, "_start", refuse)
        await kill_idle(pool, pools)
        await until(lambda: pools.events.count("restarted") >= 3)
        assert not pool.alive
    await until(lambda: pool.alive)


async def test_closing_does_not_wait_for_a_worker_that_does_not_start(
    pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pools()
    await pool.start()
    monkeypatch.setattr(pool_module, "START_BACKOFF_SECONDS", 3600)
    monkeypatch.setattr(Launch, "_start", refuse)
    await kill_idle(pool, pools)
    await until(lambda: "restarted" in pools.events)
    async with asyncio.timeout(20):
        await pool.close()


def refuse(launch: Launch) -> None:
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


async def test_closing_while_an_idle_worker_is_replaced_leaves_none(pools: Pools) -> None:
    others = workers()
    pool = pools()
    await pool.start()
    os.kill(pool.pids[0], signal.SIGKILL)
    await until(lambda: pools.events == ["died"])
    await pool.close()
    assert pool.pids == []
    await until(lambda: workers() <= others)


async def test_a_fault_in_a_worker_is_logged_here_in_our_format(pools: Pools, caplog: pytest.LogCaptureFixture) -> None:
    outcome = await pools().run(InspectJob(None), "a")  # type: ignore[arg-type]  # the fault
    assert isinstance(outcome, Undecodable)
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "a job met an unexpected fault"
    assert "in _read_container" in line["exception"]
    assert "TypeError" in line["exception"]


async def test_a_process_that_took_over_a_dead_workers_number_is_left_alone(pools: Pools, picture: InspectJob) -> None:
    pool = pools()
    await pool.start()
    [slot] = pool._slots
    os.kill(slot.pid, signal.SIGKILL)
    with subprocess.Popen(["sleep", "60"]) as innocent:
        try:
            slot.pid = innocent.pid
            assert isinstance(await pool.run(picture, "a"), Picture)
            assert alive(innocent.pid)
        finally:
            innocent.kill()


async def test_the_job_of_a_killed_worker_is_done_by_a_fresh_one(
    pools: Pools, endless: InspectJob, picture: InspectJob
) -> None:
    pool = pools()
    await pool.start()
    first = pool.pids[0]
    job = asyncio.create_task(pool.run(endless, "a"))
    await until(lambda: pool.busy == 1)
    os.kill(first, signal.SIGKILL)
    await until(lambda: bool(pool.pids) and pool.pids[0] != first)
    Path(endless.source).unlink()
    Path(picture.source).rename(endless.source)
    os.kill(pool.pids[0], signal.SIGKILL)
    assert isinstance(await job, Picture)
    assert pools.events.count("died") == 2


async def test_a_job_past_its_deadline_is_killed_with_its_worker_which_is_replaced(
    pools: Pools, endless: InspectJob, picture: InspectJob
) -> None:
    pool = pools(deadline=0.2)
    await pool.start()
    pid = pool.pids[0]
    outcome = await pool.run(endless, "a")
    assert isinstance(outcome, TooCostly)
    assert "0.8 seconds by the clock" in outcome.detail
    await until(lambda: not alive(pid))
    await until(lambda: pool.alive)
    assert pools.events == ["late"]


async def test_an_input_that_kills_fresh_workers_is_poison_for_a_while(
    pools: Pools, endless: InspectJob, picture: InspectJob
) -> None:
    pool = pools()
    await pool.start()
    seen: set[int] = set()
    job = asyncio.create_task(pool.run(endless, "bad"))

    def a_new_worker_is_up() -> bool:
        return pool.busy == 1 and bool(set(pool.pids) - seen)

    for _ in range(POISON_DEATHS):
        await until(a_new_worker_is_up)
        seen |= set(pool.pids)
        await asyncio.to_thread(_kill_when_reading, pool.pids[0], endless.source)
    outcome = await job
    assert isinstance(outcome, TooCostly)
    assert pools.events == ["died"] * POISON_DEATHS + ["poisoned"]
    assert isinstance(await pool.run(picture, "bad"), TooCostly)
    assert isinstance(await pool.run(picture, "good"), Picture)
    pools.clock.now += POISON_SECONDS
    assert isinstance(await pool.run(picture, "bad"), Picture)


def _kill_when_reading(pid: int, path: str) -> None:
    """Opening the other end blocks until the worker reads the pipe, and so has the job."""
    with open(path, "wb"):
        os.kill(pid, signal.SIGKILL)


async def test_a_cancelled_caller_leaves_the_queue_and_keeps_no_slot(pools: Pools, picture: InspectJob) -> None:
    pool = pools()
    await pool.start()
    jobs = [asyncio.create_task(pool.run(picture, "a")) for _ in range(20)]
    await asyncio.sleep(0)
    assert pool.waiting == 19
    for job in jobs[::2]:
        job.cancel()
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    assert all(isinstance(outcome, Picture) for outcome in outcomes[1::2])
    assert (pool.waiting, pool.busy) == (0, 0)


async def test_closing_leaves_no_process(pools: Pools, endless: InspectJob) -> None:
    pool = pools(2)
    await pool.start()
    pids = pool.pids
    job = asyncio.create_task(pool.run(endless, "a"))
    await until(lambda: pool.busy == 1)
    await pool.close()
    with pytest.raises(BrokenProcessPool):
        await job
    await until(lambda: not any(map(alive, pids)))


def test_a_bare_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import asyncio, io, sys
        from PIL import Image
        from service.exports import ImageExportService
        print("ran", flush=True)
        data = io.BytesIO()
        Image.new("RGB", (64, 36), "teal").save(data, "PNG")
        async def main():
            exports = await ImageExportService().process_and_export_image(data.getvalue())
            print(sorted(exports), flush=True)
        asyncio.run(main())
        """)
    )
    environment = {**os.environ, "STORAGE_DIR": str(tmp_path / "storage"), "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True, env=environment, timeout=60
    )
    assert answer.stdout.splitlines() == ["ran", "['jpeg', 'png', 'webp']"]
    assert answer.stderr == ""


def test_a_signal_to_the_whole_group_spares_the_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import asyncio, os, signal, sys
        from service.imaging.plan import InspectJob, WorkerLimits
        from service.workers.pool import WorkerPool
        async def main():
            pool = WorkerPool(1, WorkerLimits(), report=print)
            await pool.start()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.killpg(0, signal.SIGTERM)
            before = pool.pids
            for _ in range(20):
                print(type(await pool.run(InspectJob(sys.argv[1]), "a")).__name__, pool.pids == before)
            await pool.close()
        asyncio.run(main())
        """)
    )
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "a.png")
    answer = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "a.png")],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60,
        start_new_session=True,
    )  # fmt: skip
    assert answer.stdout.splitlines() == ["Picture True"] * 20
