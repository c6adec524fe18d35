"""Trios (PNG, JPEG and WebP of one picture) by the service and by its peers.

Every contender gets the same pictures from four clients. Rounds of all alternate, and ratios are medians over rounds.
"""

import asyncio
import contextlib
import itertools
import re
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

import aiohttp

from bench import peers
from bench.against import argument_parser, compare
from bench.processes import HERE, Checkout
from bench.table import machine, median_ratio, percentile, print_table
from bench.trios import (
    BARE_BASE,
    CLIENTS,
    INLINE_BASE,
    OURS,
    OURS_BASE,
    PICTURES,
    REQUEST_SECONDS,
    Contender,
    Contenders,
    Round,
)
from bench.workload import SIZE, Original, drawings, originals

ROUNDS = 5


async def measure(only: str = "") -> tuple[list[Contender], list[str]]:
    """The contenders with their rounds, and notes: the versions of the peers, and which are missing."""
    pictures, missing = originals(PICTURES)
    notes = [f"missing: {line}" for line in missing]
    async with open_contenders() as contenders:
        for picture in pictures:
            (contenders.folder / f"{picture.name}.png").write_bytes(picture.data)
        for add in (
            contenders.add_service,
            contenders.add_generation,
            contenders.add_thorough_service,
            contenders.add_pillow,
            contenders.add_sharp,
            contenders.add_thumbor,
            contenders.add_bare,
        ):
            try:
                notes.append(add())
            except peers.MissingError as error:
                notes.append(f"missing: {error}")
        chosen = [one for one in contenders.all if one.name in (OURS, OURS_BASE) or re.search(only, one.name)]
        await _warm_up(chosen, pictures)
        for number in range(ROUNDS):
            for contender in _rotated(chosen, number):
                await contender.run(pictures)
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)
    return chosen, [note for note in notes if note]


async def measure_against(there: Checkout, rounds: int, only: str = "") -> None:
    """Compare the service with that of another checkout, in the cases that `only` matches."""
    pictures = originals(PICTURES)[0] or drawings(PICTURES)
    async with open_contenders() as here, open_contenders() as other:
        for contenders, checkout in ((here, HERE), (other, there)):
            contenders.add_service(checkout)
            contenders.add_generation(checkout)
        mine, theirs = ([one for one in each.all if re.search(only, one.name)] for each in (here, other))
        await _warm_up(mine + theirs, pictures)
        await compare(lambda: _figures(mine, pictures), lambda: _figures(theirs, pictures), rounds)


async def _figures(contenders: Sequence[Contender], pictures: Sequence[Original]) -> Mapping[str, float]:
    """One round of each contender."""
    figures = {}
    for contender in contenders:
        await contender.run(pictures)
        run = contender.rounds[-1]
        name = contender.name.strip("*")
        figures[f"{name}: trios/s"] = run.rate
        figures[f"{name}: CPU s per trio"] = run.cpu_per_trio
        figures[f"{name}: KB per trio"] = run.kb
    return figures


@contextlib.asynccontextmanager
async def open_contenders() -> AsyncIterator[Contenders]:
    timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, contextlib.ExitStack() as stack:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            yield Contenders(stack, Path(scratch), session)


async def _warm_up(contenders: Sequence[Contender], pictures: Sequence[Original]) -> None:
    for contender in contenders:
        await contender.export(pictures[0], pictures[1])


def _rotated(contenders: Sequence[Contender], number: int) -> Iterator[Contender]:
    """The contenders; each round begins with another one."""
    return itertools.islice(itertools.cycle(contenders), number, number + len(contenders))


def report(contenders: Sequence[Contender], notes: Sequence[str]) -> None:
    print(f"{machine()}; {'; '.join(notes)}")
    print(f"{PICTURES} pictures of {SIZE[0]} x {SIZE[1]}, {CLIENTS} clients, {ROUNDS} rounds", end="")
    by_name = {contender.name: contender for contender in contenders}
    rows = []
    for contender in contenders:
        over_base = contender.name in (OURS_BASE, INLINE_BASE, BARE_BASE)
        ours = by_name[OURS_BASE if over_base else OURS].rounds
        latencies = [latency for run in contender.rounds for latency in run.latencies]
        rates = [run.rate for run in contender.rounds]
        rows.append(
            (
                contender.name,
                f"{statistics.median(rates):.2f}",
                f"{median_ratio([run.rate for run in ours], rates):.2f}",
                f"{statistics.median(run.cpu_per_trio for run in contender.rounds):.3f}",
                f"{_cpu_ratio(ours, contender.rounds):.2f}",
                f"{statistics.median(run.kb for run in contender.rounds):.0f}",
                f"{percentile(latencies, 0.5) * 1000:.0f}",
                f"{percentile(latencies, 0.99) * 1000:.0f}",
                f"{contender.memory.pss:.0f}" if contender.memory else "",
            )
        )
    heads = ("", "trios/s", "ours is", "CPU s per trio", "ours takes", "KB per trio", "p50 ms", "p99 ms", "memory MB")
    print_table(heads, rows)


def _cpu_ratio(ours: Sequence[Round], others: Sequence[Round]) -> float:
    return median_ratio([run.cpu_per_trio for run in ours], [run.cpu_per_trio for run in others])


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--only", default="", metavar="REGEX", help="the contenders to run beside this service")
    options = parser.parse_args()
    if options.against:
        asyncio.run(measure_against(options.against, options.rounds, options.only))
    else:
        report(*asyncio.run(measure(options.only)))


if __name__ == "__main__":
    main()
