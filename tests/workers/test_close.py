"""Closing a pool, and starts that hang: no caller waits for ever, and no process is left."""

import asyncio
import contextlib
import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from service.imaging.errors import ImagingError
from service.imaging.plan import InspectJob, Picture
from service.workers import launch as launch_module
from service.workers.forkserver import forkserver_pid
from service.workers.slot import Slot
from tests.helpers import alive, until
from tests.workers.pools import Pools, workers
from tests.workers.test_storm import Crash

ROOT = Path(__file__).parents[2]


async def test_closing_fails_every_job_in_the_queue(pools: Pools, endless: InspectJob, picture: InspectJob) -> None:
    others = workers()
    pool = pools()
    await pool.start()
    jobs = [asyncio.create_task(pool.run(endless, "a"))]
    await until(lambda: pool.busy == 1)
    jobs += [asyncio.create_task(pool.run(picture, str(number))) for number in range(4)]
    await until(lambda: pool.waiting == 4)
    await pool.close()
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [BrokenProcessPool] * 5
    assert workers() <= others
    assert (pool.waiting, pool.pids) == (0, [])


async def test_a_closed_pool_runs_nothing_and_starts_nothing(pools: Pools, picture: InspectJob) -> None:
    others = workers()
    pool = pools()
    await pool.close()
    with pytest.raises(BrokenProcessPool):
        await pool.run(picture, "a")
    with pytest.raises(BrokenProcessPool):
        await pool.start()
    assert workers() <= others


async def test_closing_ends_a_start_in_progress(pools: Pools, picture: InspectJob) -> None:
    others = workers()
    for steps in range(12):
        pool = pools(2)
        jobs = [asyncio.create_task(pool.run(picture, str(number))) for number in range(4)]
        for _ in range(steps):
            await asyncio.sleep(0.02)
        await pool.close()
        outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {BrokenProcessPool, Picture}
        assert workers() <= others


async def test_closing_ends_a_job_between_two_workers(pools: Pools) -> None:
    others = workers()
    pool = pools()
    job = asyncio.create_task(pool.run(Crash("crashing"), "a"))
    await until(lambda: "died" in pools.events)
    await pool.close()
    with pytest.raises(BrokenProcessPool):
        await job
    assert workers() <= others


async def test_two_concurrent_closes_both_return(pools: Pools, endless: InspectJob) -> None:
    pool = pools()
    job = asyncio.create_task(pool.run(endless, "a"))
    await until(lambda: pool.alive)
    await asyncio.gather(pool.close(), pool.close())
    with pytest.raises(BrokenProcessPool):
        await job


async def test_closing_kills_a_stopped_worker_too(pools: Pools, picture: InspectJob) -> None:
    pool = pools()
    await pool.start()
    [pid] = pool.pids
    os.kill(pid, signal.SIGSTOP)
    job = asyncio.create_task(pool.run(picture, "a"))
    await until(lambda: pool.busy == 1)
    await pool.close()
    with pytest.raises(BrokenProcessPool):
        await job
    assert not alive(pid)


def stopped_forkserver() -> int:
    """Make the fork server hang; returns its process id."""
    server = forkserver_pid()
    assert server
    os.kill(server, signal.SIGSTOP)
    return server


async def test_a_start_that_hangs_has_a_limit_and_the_next_one_works(
    pools: Pools, picture: InspectJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pools().start()
    monkeypatch.setattr(launch_module, "START_SECONDS", 1)
    server = stopped_forkserver()
    pool = pools(2)
    job = asyncio.create_task(pool.run(picture, "a"))
    await until(lambda: forkserver_pid() != server)
    # A start that does not hang takes longer than a second on a busy machine.
    monkeypatch.setattr(launch_module, "START_SECONDS", 30)
    assert isinstance(await job, Picture)
    assert "restarted" in pools.events
    assert forkserver_pid() != server


async def test_a_fork_server_that_dies_costs_no_job(pools: Pools, endless: InspectJob, picture: InspectJob) -> None:
    pool = pools()
    await pool.start()
    job = asyncio.create_task(pool.run(endless, "a"))
    await until(lambda: pool.busy == 1)
    server = forkserver_pid()
    assert server
    os.kill(server, signal.SIGKILL)
    # The executor has lost its worker, which still runs and could read what is written to the pipe before this.
    await until(lambda: "died" in pools.events and pool.alive)
    data = await asyncio.to_thread(Path(picture.source).read_bytes)
    await asyncio.to_thread(Path(endless.source).write_bytes, data)
    assert isinstance(await job, Picture)
    assert isinstance(await pool.run(picture, "b"), Picture)


async def test_closing_returns_while_the_fork_server_hangs(
    pools: Pools, picture: InspectJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pools().start()
    monkeypatch.setattr(launch_module, "END_SECONDS", 0.2)
    stopped_forkserver()
    pool = pools(2)
    job = asyncio.create_task(pool.run(picture, "a"))
    await until(lambda: pool.busy == 1)
    await asyncio.sleep(0.1)
    await pool.close()
    with pytest.raises(BrokenProcessPool):
        await job
    assert isinstance(await pools().run(picture, "a"), Picture)


@pytest.mark.slow
async def test_closing_at_any_moment_leaves_nothing(
    pools: Pools, picture: InspectJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pools().start()
    others, descriptors = workers(), len(os.listdir("/proc/self/fd"))
    chance = random.Random(11)
    for _ in range(15):
        pool = pools(3)
        jobs = [
            asyncio.create_task(pool.run(chance.choice([picture, Crash("crashing")]), str(number)))
            for number in range(20)
        ]
        await asyncio.sleep(chance.random() / 2)
        for job in chance.sample(jobs, 5):
            job.cancel()
        for pid in pool.pids[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, chance.choice([signal.SIGKILL, signal.SIGSTOP]))
        async with asyncio.timeout(60):
            await pool.close()
            outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        kinds = (BrokenProcessPool, asyncio.CancelledError, Picture, ImagingError)
        assert all(isinstance(outcome, kinds) for outcome in outcomes), outcomes
        assert workers() <= others
    # Descriptors are not left to the garbage collector, which may run much later.
    await until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)


@pytest.mark.parametrize("stopped", ["pool.pids[0]", "forkserver_pid()"])
def test_the_interpreter_exits_whatever_hangs(tmp_path: Path, stopped: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import asyncio, os, signal
        from service.imaging.plan import WorkerLimits
        from service.workers.forkserver import forkserver_pid
        from service.workers.pool import WorkerPool
        async def main():
            pool = WorkerPool(1, WorkerLimits())
            await pool.start()
            os.kill({stopped}, signal.SIGSTOP)
            print(pool.pids[0], forkserver_pid(), flush=True)
        asyncio.run(main())
        """)
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdout is not None
            pids = [int(pid) for pid in process.stdout.readline().split()]
            assert process.wait(60) == 0
        finally:
            process.kill()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


async def test_a_caller_that_got_a_slot_just_before_the_pool_was_closed_starts_nothing(
    pools: Pools, picture: InspectJob
) -> None:
    others = workers()
    pool = pools()
    job = asyncio.create_task(pool.run(picture, "a"))
    await asyncio.sleep(0)
    # It was given its slot, and has not run since.
    assert pool.busy == 1
    await pool.close()
    with pytest.raises(BrokenProcessPool):
        await job
    assert workers() <= others


async def test_a_worker_of_a_loop_that_is_closed_can_be_ended(picture: InspectJob) -> None:
    def used_elsewhere() -> tuple[Slot, int]:
        async def use() -> tuple[Slot, int]:
            pool = Pools()()
            assert isinstance(await pool.run(picture, "a"), Picture)
            return pool._slots[0], pool.pids[0]

        return asyncio.run(use())

    slot, pid = await asyncio.to_thread(used_elsewhere)
    assert alive(pid)
    slot.kill()
    await until(lambda: not alive(pid))


async def test_the_end_of_a_forked_child_leaves_the_workers_alone(pools: Pools, picture: InspectJob) -> None:
    pool = pools()
    await pool.start()
    before = pool.pids

    # The child collects garbage, and runs the exit handlers of the interpreter.
    child = multiprocessing.get_context("fork").Process(target=gc.collect)
    child.start()
    await asyncio.to_thread(child.join, 60)
    assert child.exitcode == 0
    assert isinstance(await pool.run(picture, "a"), Picture)
    assert (pool.pids, pools.events) == (before, [])


@pytest.mark.parametrize("seconds", [0.02, 1.5])
def test_a_pool_whose_loop_was_closed_amid_a_job_can_be_closed(endless: InspectJob, seconds: float) -> None:
    # In a process of its own, because asyncio reports the pending tasks of such a loop.
    script = textwrap.dedent(f"""
        import asyncio
        from service.imaging.plan import InspectJob, WorkerLimits
        from service.workers.pool import WorkerPool
        from tests.workers.pools import workers
        async def begin():
            jobs = [asyncio.create_task(pool.run(InspectJob({endless.source!r}), name)) for name in "ab"]
            await asyncio.sleep({seconds})
            return jobs
        pool = WorkerPool(1, WorkerLimits())
        loop = asyncio.new_event_loop()
        jobs = loop.run_until_complete(begin())
        loop.close()
        asyncio.run(pool.close())
        print([job.done() for job in jobs], workers())
    """)
    command = [sys.executable, "-c", script]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert answer.stdout == "[False, False] set()\n", answer.stderr
