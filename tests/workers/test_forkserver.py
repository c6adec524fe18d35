"""The fork server: what its death costs, and where its socket is."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from service.imaging.plan import InspectJob, Picture
from service.workers.forkserver import forkserver_pid
from service.workers.strikes import POISON_DEATHS
from tests.helpers import until
from tests.workers.pools import Pools

ROOT = Path(__file__).parents[2]


def kill_forkserver(worker: int) -> None:
    server = forkserver_pid()
    assert server
    os.kill(server, signal.SIGKILL)


def kill_forkserver_and_worker(worker: int) -> None:
    kill_forkserver(worker)
    os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize("kill", [kill_forkserver, kill_forkserver_and_worker])
async def test_an_input_is_not_to_blame_for_the_death_of_the_fork_server(
    pools: Pools, endless: InspectJob, picture: InspectJob, kill: Callable[[int], None]
) -> None:
    pool = pools()
    data = Path(picture.source).read_bytes()
    with open(endless.source, "r+b", buffering=0) as pipe:
        job = asyncio.create_task(pool.run(endless, "a"))
        for deaths in range(POISON_DEATHS):
            await until(lambda: pool.alive and reads(pool.pids[0], endless.source))
            kill(pool.pids[0])
            await until(partial(seen_dead, pools, deaths + 1))
        await until(lambda: pool.alive and reads(pool.pids[0], endless.source))
        pipe.write(data)
    assert isinstance(await job, Picture)
    assert pools.events.count("died") == POISON_DEATHS


async def test_a_job_that_is_never_answered_is_not_run_for_ever(pools: Pools, endless: InspectJob) -> None:
    pool = pools()
    with open(endless.source, "r+b", buffering=0):
        job = asyncio.create_task(pool.run(endless, "a"))
        while not job.done():
            if pool.alive and reads(pool.pids[0], endless.source):
                kill_forkserver(pool.pids[0])
            await asyncio.sleep(0.01)
    with pytest.raises(BrokenProcessPool):
        await job
    assert "poisoned" not in pools.events


def seen_dead(pools: Pools, deaths: int) -> bool:
    return pools.events.count("died") >= deaths


def reads(pid: int, path: str) -> bool:
    """Whether a process has a file open."""
    try:
        return path in [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:  # it died, or closed one of its files
        return False


def test_workers_start_whatever_the_umask_is(short_path: Path) -> None:
    (short_path / "t").mkdir()
    # Root may open files that have no permissions, unless it lacks its capabilities.
    plain = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    answer = subprocess.run(
        [*plain, sys.executable, "-m", "service", "check"], capture_output=True, text=True, check=False, timeout=120,
        cwd=ROOT, umask=0o777,
        env={**os.environ, "STORAGE_DIR": str(short_path / "s"), "TMPDIR": str(short_path / "t"), "EXPORT_WORKERS": "1",
             "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert answer.stdout.splitlines()[-1] == "workers: ok, 1 started", answer.stderr


def test_workers_start_after_the_temporary_directory_was_emptied(short_path: Path) -> None:
    Image.new("RGB", (40, 30), "teal").save(short_path / "a.png")
    (short_path / "spare").mkdir()
    program = textwrap.dedent("""
        import asyncio, os, shutil, signal, sys
        from service.imaging.plan import InspectJob, WorkerLimits
        from service.workers.forkserver import forkserver_pid
        from service.workers.pool import WorkerPool
        from service.workers.tempdir import use_temp_directory
        async def main():
            print(use_temp_directory("spare"))
            pool = WorkerPool(1, WorkerLimits())
            await pool.start()
            print(os.listdir(os.environ["TMPDIR"]))
            shutil.rmtree(os.environ["TMPDIR"])
            for victim in (lambda: pool.pids[0], forkserver_pid, lambda: pool.pids[0]):
                os.kill(victim(), signal.SIGKILL)
                print(type(await pool.run(InspectJob("a.png"), "a")).__name__)
            await pool.close()
        asyncio.run(main())
    """)
    (short_path / "t").mkdir()
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=short_path, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(short_path / "t")},
    )  # fmt: skip
    assert answer.stdout.splitlines() == ["None", "[]", *["Picture"] * 3], answer.stderr
    assert "Traceback" not in answer.stderr
