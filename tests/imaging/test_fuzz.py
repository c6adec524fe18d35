from pathlib import Path

import pytest

from tests.imaging.fuzz import fuzz


@pytest.mark.parametrize(("jobs", "least"), [(60, 3), pytest.param(1_000, 100, marks=pytest.mark.slow)])
def test_mutated_pictures_end_as_pictures_or_typed_refusals(tmp_path: Path, jobs: int, least: int) -> None:
    report = fuzz(tmp_path, seed=20_240_115, wanted=lambda number: number < jobs)
    assert report.faults == []
    assert report.outcomes["picture"] > least
    assert report.outcomes["undecodable"] > least
    assert report.cpu_seconds < 5
    assert report.memory_megabytes < 700
