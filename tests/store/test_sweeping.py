"""The walk of a sweep: which files it removes, and which it must not."""

import errno
import fcntl
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from service.store import sweeping
from service.store.sweeping import DAY_SECONDS, MAX_ERRORS, sweep
from tests.helpers import make_old as make
from tests.helpers import open_descriptors


def test_only_older_files_go(tmp_path: Path) -> None:
    old, young, kept = make(tmp_path / "a", 2), make(tmp_path / "b", 0.5), make(tmp_path / ".gitkeep", 99)
    done = sweep(tmp_path, 1)
    assert (done.files, done.bytes, done.errors) == (1, 1, [])
    assert not old.exists()
    assert young.exists()
    assert kept.exists()


def test_an_area_that_cannot_be_listed_is_an_error_of_that_area(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "scandir", refuse)
    assert sweep(tmp_path / "nowhere", 1).errors == []
    assert sweep(tmp_path, 1).errors == [f"{tmp_path.name}: Input/output error"]


def test_subdirectories_are_swept_and_stay(tmp_path: Path) -> None:
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


def test_a_missing_area_has_nothing_to_sweep(tmp_path: Path) -> None:
    assert sweep(tmp_path / "gone", 1).files == 0


def test_links_are_neither_followed_nor_removed(tmp_path: Path) -> None:
    outside = make(tmp_path / "outside" / "precious", 99)
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").symlink_to(outside)
    (root / "folder").symlink_to(outside.parent)
    assert sweep(root, 1).files == 0
    assert outside.exists()


def test_a_directory_swapped_for_a_link_during_the_walk_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = make(tmp_path / "outside" / "precious", 99)
    root = tmp_path / "root"
    make(root / "folder" / "old", 99)
    real = sweeping._opened

    def swap_then_open(directory: Path | str, parent: int | None = None) -> object:
        if parent is not None:
            (root / "folder").rename(tmp_path / "moved")
            (root / "folder").symlink_to(outside.parent)
        return real(directory, parent)

    monkeypatch.setattr(sweeping, "_opened", swap_then_open)
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


def test_a_sweep_that_is_stopped_ends_before_the_next_file_and_leaves_no_descriptor(tmp_path: Path) -> None:
    for number in range(10):
        make(tmp_path / "x" / "y" / str(number), 2)
    before = open_descriptors()
    answers = iter([False] * 5 + [True] * 9)
    done = sweep(tmp_path, 1, stopped=lambda: next(answers))
    # Two of the five entries were the folders.
    assert done.files == 3
    # What earlier tests left may be closed meanwhile.
    assert open_descriptors() <= before


def test_a_huge_directory_is_never_in_memory_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "BATCH_ENTRIES", 100)
    for number in range(10_000):
        os.close(os.open(tmp_path / f"file-{number:030}", os.O_CREAT | os.O_WRONLY))
    tracemalloc.start()
    try:
        done = sweep(tmp_path, 1, now=time.time() + 2 * DAY_SECONDS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (done.files, list(tmp_path.iterdir())) == (10_000, [])
    assert peak < 200_000


def test_errors_are_counted_and_only_the_first_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for number in range(50):
        make(tmp_path / str(number), 2)
    monkeypatch.setattr(os, "unlink", refuse)
    done = sweep(tmp_path, 1)
    assert (done.seen, done.files, done.failed, len(done.errors)) == (50, 0, 50, MAX_ERRORS)


def test_a_read_only_file_is_removed(tmp_path: Path) -> None:
    make(tmp_path / "a", 2).chmod(0o400)
    assert sweep(tmp_path, 1).files == 1
