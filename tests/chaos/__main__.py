"""`make chaos`: kills the service at random and at every crash point, races requests, and audits what is left."""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.armed import POINTS
from tests.chaos.audit import Report
from tests.chaos.races import race_for_budget, race_for_key
from tests.chaos.runs import kill_at_point, kills_at_random
from tests.chaos.streams import read_through_restarts


@dataclass(slots=True)
class Table:
    """Prints a row for each run as it ends, and counts those with faults."""

    failed: list[str] = field(default_factory=list)

    async def add(self, name: str, run: Awaitable[Report]) -> None:
        began = time.monotonic()
        report = await run
        if report.faults:
            self.failed.append(name)
        seconds = f"{time.monotonic() - began:.0f} s"
        print(f"{name:<32} {'FAULTS' if report.faults else 'ok':<7} {seconds:>6}  {report.seen}", flush=True)
        for fault, count in report.faults.items():
            print(f"{'':<32} {fault.replace('_', ' ')}: {count}", flush=True)


def progress(line: str) -> None:
    print(f"  {line}", flush=True)


async def run(kills: int, seed: int) -> int:
    choose, table = random.Random(seed), Table()
    top = Path(tempfile.mkdtemp(prefix="chaos-"))
    await table.add(f"{kills} kills at random", kills_at_random(top / "random", kills, choose, progress))
    for point in POINTS:
        await table.add(point, kill_at_point(top / point.split()[0], point))
    budget = race_for_budget(top / "budget", 10, 100, 5.0, choose, progress)
    await table.add("100 racing for a budget, 10 kills", budget)
    await table.add("50 POSTs at once with one key", race_for_key(top / "key", 50, progress))
    await table.add("200 readers, two restarts", read_through_restarts(top / "streams", 200, choose, progress))
    if table.failed:
        print(f"what is left, and the logs: {top}")
    else:
        shutil.rmtree(top)
    print(f"seed {seed}: {len(table.failed)} runs with faults {', '.join(table.failed)}".rstrip())
    return 1 if table.failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sys.exit(asyncio.run(run(given.kills, given.seed)))
