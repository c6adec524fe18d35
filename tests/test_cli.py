"""The command line, through its own entry point."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from service import backend, commands
from service.cli import main
from service.settings import Settings
from service.thumbnails import ThumbnailService


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("STORAGE_DIR", str(tmp_path / "storage"))
    monkeypatch.setenv("EXPORT_WORKERS", "1")
    monkeypatch.setenv("EMULATOR_DELAY_SECONDS", "0")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "holiday.png"
    Image.new("RGB", (400, 300), "teal").save(path)
    return path


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_generate_writes_each_variation_and_prints_its_paths(tmp_path: Path, picture: Path) -> None:
    answer = run("generate", "My script", "--image", picture, "--count", 2, "--out", "made")
    assert answer.exit_code == 0, answer.output
    names = [f"made/var-{number}{suffix}" for number in (1, 2) for suffix in (".png", ".jpg", ".webp")]
    assert sorted(answer.stdout.split()) == sorted(names)
    assert size_of(tmp_path / "made/var-1.png") == (1280, 720)


def test_generate_prints_the_http_answer_as_json(tmp_path: Path) -> None:
    answer = run("generate", "My script", "--formats", "webp", "--json")
    body = json.loads(answer.stdout)
    assert body["variations"][0]["exports"]["webp"]["file_path"].startswith("output/")
    assert (tmp_path / "var-1.webp").exists()


def test_some_missing_is_exit_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMULATOR_FAULTS", "blocked_safety,ok")
    answer = run("generate", "My script", "--count", 2)
    assert answer.exit_code == 3
    assert len(answer.stdout.split()) == 3
    assert "blocked" in answer.stderr


def test_nothing_done_is_exit_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMULATOR_FAULTS", "*blocked_safety")
    answer = run("generate", "My script")
    assert (answer.exit_code, answer.stdout) == (1, "")


def test_nothing_is_overwritten_without_force(tmp_path: Path, picture: Path) -> None:
    assert run("export", picture, "--formats", "webp").exit_code == 0
    before = (tmp_path / "holiday-400x300.webp").read_bytes()
    refused = run("export", picture, "--formats", "webp", "--webp-quality", 1)
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert (tmp_path / "holiday-400x300.webp").read_bytes() == before
    assert run("export", picture, "--formats", "webp", "--webp-quality", 1, "--force").exit_code == 0
    assert (tmp_path / "holiday-400x300.webp").read_bytes() != before


def test_export_names_the_size_and_meets_it(tmp_path: Path, picture: Path) -> None:
    answer = run("export", picture, "--size", "1280x720", "--out", "made", "--fit", "contain")
    assert answer.exit_code == 0, answer.output
    assert size_of(tmp_path / "made/holiday-1280x720.jpg") == (1280, 720)


def test_export_goes_on_after_a_bad_picture(tmp_path: Path, picture: Path) -> None:
    (tmp_path / "bad.png").write_text("text")
    answer = run("export", tmp_path / "bad.png", picture, "--formats", "png", "--out", "made")
    assert answer.exit_code == 3
    assert answer.stdout.split() == ["made/holiday-400x300.png"]
    assert "bad.png" in answer.stderr


def test_a_base_that_is_no_regular_file_is_told_and_the_picture_is_alone(tmp_path: Path, picture: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    answer = run("export", picture, "--base", tmp_path / "pipe", "--formats", "jpeg")
    assert (answer.exit_code, answer.stdout.split()) == (0, ["holiday-400x300.jpg"])
    assert "composite_failed: the base picture cannot be opened" in answer.stderr


def test_a_picture_that_is_no_regular_file_is_not_waited_for(tmp_path: Path, picture: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    answer = run("export", tmp_path / "pipe", picture, "--formats", "jpeg")
    assert (answer.exit_code, answer.stdout.split()) == (3, ["holiday-400x300.jpg"])
    assert "pipe: unsupported_image: not a regular file" in answer.stderr
    answer = run("generate", "My script", "--image", tmp_path / "pipe")
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert answer.stderr.splitlines()[-1] == "error: not a regular file"


def test_a_picture_named_twice_is_exported_once_and_none_is_missing(picture: Path) -> None:
    answer = run("export", picture, picture, "--formats", "jpeg")
    assert answer.exit_code == 0
    assert answer.stdout.split() == ["holiday-400x300.jpg"]


def test_a_picture_that_no_worker_can_export_is_told_and_not_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, picture: Path
) -> None:
    monkeypatch.setenv("WORKER_MEMORY_MB", "256")
    answer = run("export", picture, "--size", "8192x8192", "--formats", "jpeg")
    assert answer.exit_code == 1
    assert f"{picture}: too_costly" in answer.stderr


def test_a_file_that_cannot_be_written_out_costs_only_itself(tmp_path: Path, picture: Path) -> None:
    (tmp_path / "holiday-400x300.png").mkdir()
    answer = run("export", picture, "--force")
    assert answer.exit_code == 3
    assert answer.stdout.split() == ["holiday-400x300.jpg", "holiday-400x300.webp"]
    assert "holiday-400x300.png: Is a directory; it is kept as output/export_" in answer.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(("owner", "name"), [(ThumbnailService, "_reference"), (commands, "gemini_service")])
def test_a_signal_before_anything_was_sent_is_one_line(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, owner: object, name: str
) -> None:
    @asynccontextmanager
    async def interrupted(*_: object) -> AsyncIterator[None]:
        os.kill(os.getpid(), number)
        await asyncio.Event().wait()
        yield

    monkeypatch.setattr(owner, name, interrupted)
    answer = run("generate", "My script")
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.stderr.splitlines()[-1] == "error: stopped before anything was sent"


@pytest.mark.parametrize(
    "arguments",
    [("generate",), ("generate", ""), ("generate", "x", "--count", "99"), ("generate", "x", "--size", "12"),
     ("generate", "x", "--fit", "squeeze"), ("export",), ("export", "missing.png"), ("unknown",)],
)  # fmt: skip
def test_usage_errors_are_exit_2(arguments: tuple[str, ...]) -> None:
    answer = run(*arguments)
    assert answer.exit_code == 2
    assert answer.stdout == ""


def test_a_script_that_is_not_utf8_is_refused_before_any_call() -> None:
    answer = run("generate", "caf\udce9")
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert answer.stderr.splitlines() == ["error: script is not UTF-8"]


def test_a_bad_setting_is_exit_2_and_one_line(monkeypatch: pytest.MonkeyPatch, picture: Path) -> None:
    monkeypatch.setenv("MATTE", "white")
    answer = run("export", picture)
    assert answer.exit_code == 2
    assert answer.stderr.splitlines() == ["error: MATTE='white' is not allowed: must look like #rrggbb"]


@pytest.mark.parametrize("host", ["127.0.0.300", "[::1]", ".localhost", "a..b", "x" * 70, "a\nb"])
def test_a_host_that_is_no_address_is_exit_2_and_one_line(host: str) -> None:
    answer = run("serve", "--host", host, "--port", 0)
    assert (answer.exit_code, answer.stdout) == (2, "")
    [line] = answer.stderr.splitlines()
    assert line.startswith(f"error: HOST={host!r} is not allowed: ")


def test_cleanup_counts_per_room_and_a_dry_run_removes_nothing(tmp_path: Path) -> None:
    old = tmp_path / "storage/uploads/old.png"
    old.parent.mkdir(parents=True)
    old.write_text("x")
    os.utime(old, (time.time() - 9e6,) * 2)
    assert "uploads: would remove 1 files" in run("cleanup", "--dry-run").stdout
    assert old.exists()
    assert "uploads: removed 1 files" in run("cleanup").stdout
    assert not old.exists()


def test_cleanup_says_what_it_could_not_remove(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMP_DIR", "/dev/null/x")
    answer = run("cleanup")
    assert answer.exit_code == 1
    assert answer.stderr.splitlines() == ["temp: x: Not a directory"]


def test_check_tells_one_line_each_and_a_missing_key_is_a_warning() -> None:
    answer = run("check")
    assert answer.exit_code == 0
    starts = [line.split(":")[0] for line in answer.stdout.splitlines()]
    assert starts == ["settings", "key", "directories", "workers"]


@pytest.mark.parametrize(
    ("name", "value", "step"),
    [("JPEG_QUALITY", "x", "settings"), ("HOST", "a..b", "settings"), ("TEMP_DIR", "/dev/null/x", "directories")],
)
def test_check_exits_2_on_a_bad_setting(monkeypatch: pytest.MonkeyPatch, name: str, value: str, step: str) -> None:
    monkeypatch.setenv(name, value)
    answer = run("check")
    assert answer.exit_code == 2
    assert answer.stdout.splitlines()[-1].startswith(f"{step}: fault: {name}")


def test_check_exits_1_on_a_fault_that_is_no_setting() -> None:
    command = f"ulimit -n 12 && exec {sys.executable} -m service check"
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 1
    assert answer.stdout.splitlines()[-1].startswith("workers: fault: ")


def test_an_emulator_that_is_too_slow_to_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "EMULATOR_START_SECONDS", 0.0)
    answer = run("generate", "My script")
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert answer.stderr.splitlines()[-1] == "error: the emulator did not start within 0 seconds"


def test_workers_live_under_a_limit_that_the_machine_sets_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_MEMORY_MB", "65536")
    command = f"ulimit -v 8000000 && exec {sys.executable} -m service check"
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert answer.stdout.splitlines()[-1] == "workers: ok, 1 started"
