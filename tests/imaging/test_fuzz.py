from pathlib import Path

from tests.imaging.fuzz import fuzz


def test_mutated_pictures_end_as_pictures_or_typed_refusals(tmp_path: Path) -> None:
    report = fuzz(tmp_path, seed=20_240_115, wanted=lambda number: number < 1_000)
    assert report.faults == []
    assert report.outcomes["picture"] > 100
    assert report.outcomes["undecodable"] > 100
    assert report.cpu_seconds < 5
    assert report.memory_megabytes < 700
