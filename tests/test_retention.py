import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service import retention
from service.retention import DAY_SECONDS, cleanup_old_files, sweep, sweep_area
from service.settings import Settings


def make(path: Path, days: float, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    mark = time.time() - days * DAY_SECONDS
    os.utime(path, (mark, mark))
    return path


def test_only_older_files_go(tmp_path: Path) -> None:
    old, young, kept = make(tmp_path / "a", 2), make(tmp_path / "b", 0.5), make(tmp_path / ".gitkeep", 99)
    done = sweep(tmp_path, 1)
    assert (done.files, done.bytes, done.errors) == (1, 1, [])
    assert not old.exists()
    assert young.exists()
    assert kept.exists()


def test_a_room_that_cannot_be_listed_is_an_error_of_that_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "scandir", refuse)
    assert sweep(tmp_path / "nowhere", 1).errors == []
    assert sweep(tmp_path, 1).errors == [f"{tmp_path.name}: Input/output error"]


def test_folders_are_walked_and_stay(tmp_path: Path) -> None:
    inner = make(tmp_path / "x" / "y" / "z", 2)
    assert sweep(tmp_path, 1).files == 1
    assert inner.parent.is_dir()


def test_a_dry_run_counts_and_removes_nothing(tmp_path: Path) -> None:
    old = make(tmp_path / "a", 2)
    assert sweep(tmp_path, 1, dry_run=True).files == 1
    assert old.exists()


@pytest.mark.parametrize("days", [0, -1, float("nan")])
def test_days_must_be_more_than_zero(tmp_path: Path, days: float) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        sweep(tmp_path, days)


def test_a_missing_room_has_nothing_to_sweep(tmp_path: Path) -> None:
    assert sweep(tmp_path / "gone", 1).files == 0


def test_links_are_neither_followed_nor_removed(tmp_path: Path) -> None:
    outside = make(tmp_path / "outside" / "precious", 99)
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").symlink_to(outside)
    (root / "folder").symlink_to(outside.parent)
    assert sweep(root, 1).files == 0
    assert outside.exists()


def test_a_folder_swapped_for_a_link_during_the_walk_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = make(tmp_path / "outside" / "precious", 99)
    root = tmp_path / "root"
    make(root / "folder" / "old", 99)
    real = retention._opened

    def swap_then_open(directory: Path | str, parent: int | None = None) -> object:
        if parent is not None:
            (root / "folder").rename(tmp_path / "moved")
            (root / "folder").symlink_to(outside.parent)
        return real(directory, parent)

    monkeypatch.setattr(retention, "_opened", swap_then_open)
    done = sweep(root, 1)
    assert done.files == 0
    assert (root / "folder").is_symlink()
    assert outside.exists()


def test_a_file_from_the_future_ages_by_its_last_change(tmp_path: Path) -> None:
    future = make(tmp_path / "a", -400)
    assert sweep(tmp_path, 1).files == 0
    assert sweep(tmp_path, 1, now=time.time() + 2 * DAY_SECONDS).files == 1
    assert not future.exists()


def test_a_file_that_a_request_holds_stays(tmp_path: Path) -> None:
    old = make(tmp_path / "a", 2)
    with old.open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        done = sweep(tmp_path, 1)
    assert (done.files, done.in_use) == (0, 1)
    assert sweep(tmp_path, 1).files == 1


def test_a_file_that_another_process_holds_stays(tmp_path: Path) -> None:
    old = make(tmp_path / "a", 2)
    code = "import fcntl,sys; f=open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_SH); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(old)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert sweep(tmp_path, 1).in_use == 1
        holder.communicate(b"\n")
    assert sweep(tmp_path, 1).files == 1


def test_special_files_stay(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert sweep(tmp_path, 0.000001, now=time.time() + DAY_SECONDS).files == 0


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
