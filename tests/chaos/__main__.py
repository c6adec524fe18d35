"""`make chaos`: kills the service, its workers and its process group at random, then at every crash point."""

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

from tests.chaos.armed import POINTS
from tests.chaos.runs import at_point, at_random


async def run(kills: int, seed: int) -> int:
    failed = 0
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        print(f"{kills} kills at random, seed {seed}")
        result = await at_random(Path(directory, "random"), kills, random.Random(seed), print)
        failed += _print("at random", result.findings.faults, str(result))
        for point in POINTS:
            outcome = await at_point(Path(directory, point.split()[0]), point)
            failed += _print(point, outcome.findings.faults, ", ".join(outcome.states))
    return 1 if failed else 0


def _print(what: str, faults: dict[str, int], rest: str) -> int:
    print(f"{what:<28} {'FAULTS ' + str(faults) if faults else 'ok':<8} {rest}", flush=True)
    return bool(faults)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sys.exit(asyncio.run(run(given.kills, given.seed)))
