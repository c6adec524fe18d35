"""How close files are to the pictures that they were made of, by ssimulacra2: 100 is identical, 90 looks so."""

import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import peers

Pair = tuple[Path, Path]  # an original, and a file of the same size


def scores(tool: peers.Tool, pairs: Sequence[Pair]) -> list[float]:
    """The score of each pair; one process for each core."""

    def score(pair: Pair) -> float:
        done = subprocess.run([tool.path, *pair], check=True, capture_output=True, text=True)
        return float(done.stdout)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as executor:
        return list(executor.map(score, pairs))
