"""Compare this checkout with another: rounds of both alternate, and ratios are medians over neighbouring rounds.

Two commits are compared by `python -m bench.service --against PATH`, where PATH is a worktree with a .venv of its own.
"""

import argparse
import statistics
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from bench.processes import Checkout
from bench.table import machine, median_ratio, print_table

ROUNDS = 6

# One round of one checkout: what was measured -> how much.
Side = Callable[[], Awaitable[Mapping[str, float]]]


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that knows `--against` and `--rounds`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--against", type=_checkout, metavar="PATH", help="a checkout to compare this one with")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"with --against: rounds of each ({ROUNDS})")
    return parser


def _checkout(path: str) -> Checkout:
    folder = Path(path).resolve()
    python = folder / ".venv/bin/python"
    if not python.exists():
        raise argparse.ArgumentTypeError(f"{python} is not there")
    return Checkout(folder, str(python))


async def compare(here: Side, there: Side, rounds: int) -> None:
    """Print the medians of both sides and of their ratios; the side that begins alternates."""
    figures: dict[Side, list[Mapping[str, float]]] = {here: [], there: []}
    for number in range(rounds):
        for side in (here, there)[:: -1 if number % 2 else 1]:
            figures[side].append(await side())
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    print(f"{machine()}; {rounds} rounds of each", end="")
    rows = []
    for name in figures[here][0]:
        mine, theirs = ([each[name] for each in figures[side]] for side in (here, there))
        medians = (f"{statistics.median(values):,.4g}" for values in (mine, theirs))
        rows.append((name, *medians, f"{median_ratio(mine, theirs):.3f}"))
    print_table(("", "here", "there", "here to there"), rows)
