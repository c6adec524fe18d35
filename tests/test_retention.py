"""Retention settings, and the cleanup for cron."""

from pathlib import Path

import pytest

from service.retention import cleanup_old_files, sweep_area
from service.settings import Settings
from service.store import sweeping
from tests.helpers import make_old as make


def test_zero_days_in_a_setting_keeps_for_ever(tmp_path: Path) -> None:
    settings = Settings(storage_dir=tmp_path, output_retention_days=0)
    make(tmp_path / "output" / "a", 9999)
    assert sweep_area(settings, "output").files == 0
    assert sweep_area(settings, "output", 1).files == 1


def test_cleanup_old_files_sweeps_temp_and_output_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_DIR", str(tmp_path))
    for area in ("temp", "output", "uploads", "generated"):
        make(tmp_path / area / "old", 9999)
    assert cleanup_old_files() == {"temp_files_deleted": 1, "output_files_deleted": 1}
    assert (tmp_path / "uploads" / "old").exists()
    assert (tmp_path / "generated" / "old").exists()


def test_an_area_that_refuses_many_files_is_a_few_lines_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sweeping, "open_to_lock", _refuse)
    for number in range(30):
        make(tmp_path / "temp" / str(number), 9)
    assert sweep_area(Settings(storage_dir=tmp_path), "temp").failed == 30
    assert len(caplog.messages) == sweeping.MAX_ERRORS + 1
    assert caplog.messages[-1] == "sweep of temp could not remove 10 more files"


def _refuse(*_: object) -> int:
    raise PermissionError(1, "Operation not permitted")
