"""A bounded run of the chaos, and every crash point of a call."""

import random
from pathlib import Path

import pytest

from tests.chaos.armed import POINTS
from tests.chaos.runs import at_point, at_random

# What becomes of the one call, by the point at which its process died.
ENDS = {
    "1": "exported",  # it was planned, and its client may come again
    "2": "unknown",
    "3": "unknown",
    "4": "unknown",
    "13": "unknown",
}

FIRST, *OTHERS = POINTS


@pytest.mark.slow
async def test_kills_at_random_lose_nothing_and_pay_nothing_twice(tmp_path: Path) -> None:
    outcome = await at_random(tmp_path / "chaos", 12, random.Random(7))
    assert outcome.findings.faults == {}
    assert outcome.findings.calls > 0


@pytest.mark.parametrize("point", [FIRST, *(pytest.param(point, marks=pytest.mark.slow) for point in OTHERS)])
async def test_at_every_crash_point_it_is_as_the_table_says(tmp_path: Path, point: str) -> None:
    outcome = await at_point(tmp_path / "chaos", point)
    assert outcome.findings.faults == {}
    assert outcome.states == [ENDS.get(point.split()[0], "exported")]
