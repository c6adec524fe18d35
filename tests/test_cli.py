"""The commands, run in process or as processes of their own."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from service import backend, cleanup, commands
from service.cli import main
from service.exports import ImageExportService
from service.orders import Event
from service.publishing import ExportSet
from service.settings import Settings
from service.store.sweeping import Sweep
from service.thumbnails import ThumbnailService
from service.workers.pool import WorkerPool
from tests.animations import animation, shown
from tests.helpers import KEY, QuickEmulator, fill_up, on_a_thread, small_disk

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("STORAGE_DIR", str(tmp_path / "storage"))
    monkeypatch.setenv("EXPORT_WORKERS", "1")
    monkeypatch.setenv("EMULATOR_DELAY_SECONDS", "0")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def _emulator() -> Iterator[str]:
    """The address of one emulator for all tests, on a thread because every command runs an event loop of its own."""
    with on_a_thread(QuickEmulator().create_app()) as url:
        yield url


@pytest.fixture
def emulator(_emulator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make commands call the running emulator instead of starting one each."""
    monkeypatch.setenv("GEMINI_BASE_URL", _emulator)
    monkeypatch.setenv("GEMINI_API_KEY", KEY)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "holiday.png"
    Image.new("RGB", (400, 300), "teal").save(path)
    return path


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def run(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


def run_process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run the command as a process, with real standard streams."""
    command = [sys.executable, "-m", "service", *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    options["env"] = os.environ | {"PYTHONPATH": str(ROOT)} | options.get("env", {})
    return subprocess.run(command, timeout=120, check=False, **options)


def test_generate_writes_each_variation_and_prints_its_paths(tmp_path: Path, picture: Path) -> None:
    answer = run("generate", "My script", "--image", picture, "--count", 2, "--out", "made")
    assert answer.exit_code == 0, answer.output
    names = [f"made/var-{number}{suffix}" for number in (1, 2) for suffix in (".png", ".jpg", ".webp")]
    assert sorted(answer.stdout.split()) == sorted(names)
    assert size_of(tmp_path / "made/var-1.png") == (1280, 720)


@pytest.mark.usefixtures("emulator")
def test_generate_prints_the_http_answer_as_json(tmp_path: Path) -> None:
    answer = run("generate", "My script", "--formats", "webp", "--json")
    body = json.loads(answer.stdout)
    assert body["variations"][0]["exports"]["webp"]["file_path"].startswith("output/")
    assert (tmp_path / "var-1.webp").exists()


@pytest.mark.usefixtures("emulator")
def test_variations_are_answered_by_number_however_they_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    generate = ThumbnailService.generate

    async def backwards(*args: Any) -> AsyncGenerator[Event, None]:
        for event in reversed([event async for event in generate(*args)]):
            yield event

    monkeypatch.setattr(ThumbnailService, "generate", backwards)
    answer = run("generate", "My script", "--count", 3, "--formats", "webp", "--json")
    assert [each["id"] for each in json.loads(answer.stdout)["variations"]] == ["var-1", "var-2", "var-3"]


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


def test_export_has_the_requested_size_and_names_it(tmp_path: Path, picture: Path) -> None:
    answer = run("export", picture, "--size", "1280x720", "--out", "made", "--fit", "contain")
    assert answer.exit_code == 0, answer.output
    assert size_of(tmp_path / "made/holiday-1280x720.jpg") == (1280, 720)


def test_export_takes_the_fields_of_the_form(tmp_path: Path, picture: Path) -> None:
    options = ("--formats", "avif", "--avif-quality", 30, "--focus", "0,0", "--max-bytes", "avif:100000")
    answer = run("export", picture, *options, "--allow-resize", "true", "--provenance", "generated", "--json")
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["exports"]["avif"]["quality"] == 30
    assert (tmp_path / "holiday-400x300.avif").exists()


def test_export_takes_every_frame_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "dance.gif").write_bytes(animation("GIF"))
    formats = ("--formats", "gif,jpeg")
    still = run("export", tmp_path / "dance.gif", *formats, "--json")
    assert (still.exit_code, json.loads(still.stdout)["exports"]["gif"]["frames"]) == (0, 1)
    assert "animation_ignored" in still.stderr
    moving = run("export", tmp_path / "dance.gif", *formats, "--out", "made", "--animate")
    assert (moving.exit_code, moving.stdout.split()) == (0, ["made/dance-64x36.jpg", "made/dance-64x36.gif"])
    assert "animation_ignored" not in moving.stderr
    assert len(shown((tmp_path / "made/dance-64x36.gif").read_bytes()).colours) == 3


def test_export_refuses_a_budget_for_every_frame(tmp_path: Path, picture: Path) -> None:
    answer = run("export", picture, "--animate", "--max-bytes", 1, "--out", "made")
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert answer.stderr == "error: animate='keep' is not allowed: only without max_bytes\n"
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "option",
    ["--formats=bmp", "--avif-quality=101", "--focus=0.5", "--focus=0.5,0.5,", "--max-bytes=0", "--max-bytes=avif:9",
     "--allow-resize=maybe", "--provenance=none"],
)  # fmt: skip
def test_a_value_that_is_refused_is_exit_2(tmp_path: Path, picture: Path, option: str) -> None:
    answer = run("export", picture, option, "--out", "made")
    assert (answer.exit_code, answer.stdout) == (2, "")
    name = option.partition("=")[0].removeprefix("--").replace("-", "_")
    assert answer.stderr.startswith(f"error: {name}=")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(("budget", "status", "made"), [("1", 1, []), ("png:1", 3, ["holiday-400x300.webp"])])
def test_a_format_over_its_budget_is_missing(picture: Path, budget: str, status: int, made: list[str]) -> None:
    answer = run("export", picture, "--formats", "png,webp", "--max-bytes", budget)
    assert (answer.exit_code, answer.stdout.split()) == (status, made)
    assert "the PNG takes at least" in answer.stderr


def test_variations_over_their_budgets_are_exit_1_and_their_pictures_are_kept() -> None:
    answer = run("generate", "My script", "--formats", "jpeg", "--max-bytes", "1")
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert "no_export" in answer.stderr
    assert "is kept as generated/" in answer.stderr


def test_generate_refuses_a_focus_with_another_fit_and_has_no_provenance() -> None:
    assert run("generate", "My script", "--focus", "auto", "--fit", "contain").exit_code == 2
    assert run("generate", "My script", "--provenance", "generated").exit_code == 2


def test_export_goes_on_after_a_bad_picture(tmp_path: Path, picture: Path) -> None:
    (tmp_path / "bad.png").write_text("text")
    answer = run("export", tmp_path / "bad.png", picture, "--formats", "png", "--out", "made")
    assert answer.exit_code == 3
    assert answer.stdout.split() == ["made/holiday-400x300.png"]
    assert "bad.png" in answer.stderr


def test_a_base_that_is_no_regular_file_is_a_warning(tmp_path: Path, picture: Path) -> None:
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


@pytest.mark.parametrize("link", ["absent.webp", "holiday.png"])
def test_a_link_in_the_place_of_a_file_is_not_written_through_without_force(
    tmp_path: Path, picture: Path, link: str
) -> None:
    before = picture.read_bytes()
    (tmp_path / "holiday-400x300.webp").symlink_to(link)
    answer = run("export", picture, "--formats", "webp")
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert (picture.read_bytes(), (tmp_path / "absent.webp").exists()) == (before, False)


def test_a_file_that_appears_meanwhile_is_not_overwritten(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export, path = ImageExportService.export, tmp_path / "holiday-400x300.webp"

    async def appearing(*args: Any) -> ExportSet:
        path.write_text("of another program")
        return await export(*args)

    monkeypatch.setattr(ImageExportService, "export", appearing)
    answer = run("export", picture, "--formats", "webp,jpeg")
    assert (answer.exit_code, answer.stdout.split()) == (3, ["holiday-400x300.jpg"])
    assert "holiday-400x300.webp: File exists; it is kept as output/export_" in answer.stderr
    assert path.read_text() == "of another program"


def test_a_file_that_finds_no_space_is_removed(tmp_path: Path, picture: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        fill_up(disk)
        answer = run("export", picture, "--formats", "webp,jpeg", "--out", disk)
        assert (answer.exit_code, answer.stdout) == (1, "")
        assert answer.stderr.count("No space left on device; it is kept as output/export_") == 2
        assert [entry.name for entry in disk.iterdir()] == ["of-another-process"]


def test_after_a_name_that_is_too_long_the_other_pictures_are_exported(tmp_path: Path, picture: Path) -> None:
    long = picture.with_name(f"{'a' * 246}.png")
    long.write_bytes(picture.read_bytes())
    answer = run("export", long, picture, "--formats", "webp")
    assert (answer.exit_code, answer.stdout.split()) == (3, ["holiday-400x300.webp"])
    assert "File name too long" in answer.stderr


def test_control_characters_in_names_are_escaped_on_stderr(tmp_path: Path, picture: Path) -> None:
    (tmp_path / "\x1b[31m\n\u202e.png").write_text("text")
    answer = run("export", "\x1b[31m\n\u202e.png")
    assert answer.stderr.splitlines()[0].startswith("\\u001b[31m\\u000a\\u202e.png: unsupported_image: ")
    answer = run("export", picture, "--out", "/proc/\x1b[31m")
    assert answer.stderr.splitlines() == ["error: /proc/\\u001b[31m: No such file or directory"]


def test_a_picture_named_twice_is_exported_once_and_none_is_missing(picture: Path) -> None:
    answer = run("export", picture, picture, "--formats", "jpeg")
    assert answer.exit_code == 0
    assert answer.stdout.split() == ["holiday-400x300.jpg"]


def test_a_picture_that_no_worker_can_export_is_a_fault_and_no_usage_error(
    monkeypatch: pytest.MonkeyPatch, picture: Path
) -> None:
    monkeypatch.setenv("WORKER_MEMORY_MB", "256")
    answer = run("export", picture, "--size", "8192x8192", "--formats", "jpeg")
    assert answer.exit_code == 1
    assert f"{picture}: too_costly" in answer.stderr


def test_after_a_file_that_cannot_be_written_the_others_are(tmp_path: Path, picture: Path) -> None:
    (tmp_path / "holiday-400x300.png").mkdir()
    answer = run("export", picture, "--force")
    assert answer.exit_code == 3
    assert answer.stdout.split() == ["holiday-400x300.jpg", "holiday-400x300.webp"]
    assert "holiday-400x300.png: Is a directory; it is kept as output/export_" in answer.stderr


@pytest.mark.usefixtures("emulator")
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


def prompts(answer: Result) -> list[str]:
    return [variation["metadata"]["prompt"] for variation in json.loads(answer.stdout)["variations"]]


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize("arguments", [("-",), ("--script-file", "-"), ("--script-file", "script.txt")])
def test_a_script_comes_from_standard_input_or_a_file(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    script = "Zwei Zeilen, äöü:\nüber das Meer"
    (tmp_path / "script.txt").write_text(f"\ufeff{script}", encoding="utf-8")
    answer = run("generate", *arguments, "--formats", "webp", "--json", stdin=f"\ufeff{script}".encode())
    assert answer.exit_code == 0, answer.output
    assert [script in prompt and "\ufeff" not in prompt for prompt in prompts(answer)] == [True]


@pytest.mark.usefixtures("emulator")
def test_a_file_named_dash_is_no_standard_input(tmp_path: Path, picture: Path) -> None:
    picture.rename(tmp_path / "-")
    answer = run("export", "./-", "--formats", "webp", stdin=b"")
    assert answer.stdout.split() == ["--400x300.webp"]
    (tmp_path / "-").write_text("A script of a file")
    answer = run("generate", "--script-file", "./-", "--formats", "webp", "--json", stdin=b"")
    assert "A script of a file" in prompts(answer)[0]


@pytest.mark.parametrize(
    ("stdin", "said"),
    [(b"", "script is required"), (b" \n\t", "script is required"), (b"\xef\xbb\xbf", "script is required"),
     (b"caf\xe9", "not UTF-8"), (b"x" * 32_001, "too long"), ("\U0001f600".encode() * 32_001, "too long")],
)  # fmt: skip
@pytest.mark.parametrize("way", ["argument", "option", "file"])
def test_a_script_that_cannot_be_used_is_exit_2_and_no_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stdin: bytes, said: str, way: str
) -> None:
    monkeypatch.setattr(commands, "gemini_service", None)
    (tmp_path / "script").write_bytes(stdin)
    arguments = {"argument": ["-"], "option": ["--script-file", "-"], "file": ["--script-file", "script"]}[way]
    answer = run("generate", *arguments, stdin=stdin)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert said in answer.stderr


@pytest.mark.usefixtures("emulator")
def test_the_longest_script_is_taken_from_standard_input() -> None:
    script = "\U0001f600" * 32_000
    answer = run("generate", "-", "--formats", "webp", "--json", stdin=f"\ufeff{script}".encode())
    assert script in prompts(answer)[0]


def test_an_endless_script_is_read_up_to_the_limit_only() -> None:
    answer = run("generate", "--script-file", "/dev/zero")
    assert answer.exit_code == 2
    assert "too long" in answer.stderr


@pytest.mark.parametrize("command", ["generate", "export"])
def test_a_closed_standard_input_is_exit_2(command: str) -> None:
    answer = run_process(command, "-", preexec_fn=lambda: os.close(0))
    assert (answer.returncode, answer.stdout) == (2, b"")
    assert answer.stderr.splitlines() == [b"error: standard input is closed"]


@pytest.mark.parametrize("command", ["generate", "export"])
def test_a_standard_input_that_cannot_be_read_is_one_line(command: str) -> None:
    answer = run_process(command, "-", stdin=os.open("/dev/null", os.O_WRONLY))
    assert (answer.returncode, answer.stdout) == (1, b"")
    assert answer.stderr.splitlines() == [b"error: standard input: Bad file descriptor"]


def test_a_script_given_twice_is_exit_2(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("My script")
    answer = run("generate", "My script", "--script-file", "script")
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert "either SCRIPT or --script-file" in answer.stderr


def test_a_picture_comes_from_standard_input(tmp_path: Path, picture: Path) -> None:
    answer = run("export", "-", picture, "--size", "1280x720", "--formats", "png", stdin=picture.read_bytes())
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.split() == ["stdin-1280x720.png", "holiday-1280x720.png"]
    assert size_of(tmp_path / "stdin-1280x720.png") == (1280, 720)
    assert list((tmp_path / "storage/temp").iterdir()) == []


def test_a_picture_on_standard_input_that_cannot_be_used_is_reported(tmp_path: Path) -> None:
    answer = run("export", "-", stdin=b"text")
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert "-: unsupported_image: " in answer.stderr
    assert list((tmp_path / "storage/temp").iterdir()) == []


def test_an_empty_standard_input_is_no_picture_and_exit_2() -> None:
    answer = run("export", "-", stdin=b"")
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert answer.stderr.splitlines() == ["error: standard input is empty: a picture is expected"]


def test_standard_input_is_read_up_to_the_limit_of_uploads_only(monkeypatch: pytest.MonkeyPatch, picture: Path) -> None:
    data = picture.read_bytes()
    monkeypatch.setenv("MAX_UPLOAD_BYTES", str(len(data)))
    assert run("export", "-", "--formats", "webp", stdin=data).exit_code == 0
    answer = run("export", "-", "--formats", "jpeg", stdin=data + b"x")
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert f"more than {len(data)} bytes" in answer.stderr


@pytest.mark.usefixtures("emulator")
def test_names_that_are_not_utf8_are_printed_as_they_are(tmp_path: Path) -> None:
    answer = run("generate", "My script", "--out", "caf\udce9", "--formats", "webp")
    assert answer.exit_code == 0, answer.exception
    assert answer.stdout_bytes == b"caf\xe9/var-1.webp\n"


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
    ],
)
def test_names_are_printed_as_they_are_in_any_locale(picture: Path, locale: dict[str, str]) -> None:
    names = ("caf\udce9", "日本")
    for name in names:
        picture.with_name(f"{name}.png").write_bytes(picture.read_bytes())
    answer = run_process("export", *(f"{name}.png" for name in names), "--formats", "webp", env=locale)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == os.fsencode("".join(f"{name}-400x300.webp\n" for name in names))


@pytest.mark.usefixtures("emulator")
@pytest.mark.slow
def test_the_answer_as_json_is_utf8_in_any_locale() -> None:
    answer = run_process(
        "generate", "日本 \U0001f600", "--formats", "webp", "--json", "--out", "caf\udce9",
        env={"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert "日本 \U0001f600" in json.loads(answer.stdout.decode("utf-8"))["variations"][0]["metadata"]["prompt"]


def test_a_broken_pipe_is_one_line_and_all_files_are_written(tmp_path: Path, picture: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    answer = run_process("export", picture, stdout=writer)
    os.close(writer)
    assert answer.returncode == 1
    assert answer.stderr.splitlines()[-1] == b"error: standard output: Broken pipe"
    assert b"Traceback" not in answer.stderr
    assert len(list(tmp_path.glob("holiday-400x300.*"))) == 3


def test_a_full_disk_behind_standard_output_is_exit_1(picture: Path) -> None:
    with open("/dev/full", "w") as full:
        answer = run_process("export", picture, stdout=full)
    assert answer.returncode == 1
    assert answer.stderr.splitlines()[-1] == b"error: standard output: No space left on device"


@pytest.mark.parametrize("command", ["check", "cleanup", "--help"])
def test_a_standard_output_that_is_full_is_one_line(command: str) -> None:
    with open("/dev/full", "w") as full:
        answer = run_process(command, stdout=full)
    assert answer.returncode == 1
    [line] = answer.stderr.splitlines()
    assert line.startswith(b"error: ")
    assert line.endswith(b"No space left on device")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_an_export_and_leaves_no_temp_file(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    async def interrupted(*_: object) -> None:
        os.kill(os.getpid(), number)
        await asyncio.Event().wait()

    monkeypatch.setattr(WorkerPool, "run", interrupted)
    answer = run("export", "-", stdin=picture.read_bytes())
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.stderr.splitlines()[-1] == "Aborted!"
    assert list((tmp_path / "storage/temp").iterdir()) == []


@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_stream_changes_nothing(tmp_path: Path, picture: Path, closed: int) -> None:
    answer = run_process("export", picture, "--formats", "webp", preexec_fn=lambda: os.close(closed))
    assert answer.returncode == 0
    assert answer.stdout == (b"" if closed == 1 else b"holiday-400x300.webp\n")
    assert (tmp_path / "holiday-400x300.webp").exists()


def test_a_broken_pipe_as_standard_error_changes_nothing(tmp_path: Path, picture: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    (tmp_path / "bad.png").write_text("text")
    answer = run_process("export", tmp_path / "bad.png", picture, "--formats", "webp", stderr=writer)
    os.close(writer)
    assert (answer.returncode, answer.stdout) == (3, b"holiday-400x300.webp\n")


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


def test_cleanup_counts_per_area_and_a_dry_run_removes_nothing(tmp_path: Path) -> None:
    old = tmp_path / "storage/uploads/old.png"
    old.parent.mkdir(parents=True)
    old.write_text("x")
    os.utime(old, (time.time() - 9e6,) * 2)
    assert "uploads: would remove 1 files" in run("cleanup", "--dry-run").stdout
    assert old.exists()
    assert "uploads: removed 1 files" in run("cleanup").stdout
    assert not old.exists()


def test_ctrl_c_ends_a_long_cleanup(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*_: object, stopped: Callable[[], bool], **__: object) -> Sweep:
        os.kill(os.getpid(), signal.SIGINT)
        end = time.monotonic() + 60
        while not stopped():
            assert time.monotonic() < end
            time.sleep(0.01)
        return Sweep()

    monkeypatch.setattr(cleanup, "sweep_area", endless)
    answer = run("cleanup")
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.stderr.strip() == "Aborted!"


def test_cleanup_says_what_it_could_not_remove(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMP_DIR", "/dev/null/x")
    answer = run("cleanup")
    assert answer.exit_code == 1
    assert answer.stderr.splitlines() == ["temp: x: Not a directory"]


def test_check_prints_a_line_per_step_and_a_missing_key_is_a_warning() -> None:
    answer = run("check")
    assert answer.exit_code == 0
    starts = [line.split(":")[0] for line in answer.stdout.splitlines()]
    assert starts == ["settings", "key", "directories", "ledger", "workers"]


@pytest.mark.parametrize(
    ("name", "value", "step"),
    [("JPEG_QUALITY", "x", "settings"), ("HOST", "a..b", "settings"), ("TEMP_DIR", "/dev/null/x", "directories")],
)
def test_check_exits_2_on_a_bad_setting(monkeypatch: pytest.MonkeyPatch, name: str, value: str, step: str) -> None:
    monkeypatch.setenv(name, value)
    answer = run("check")
    assert answer.exit_code == 2
    assert answer.stdout.splitlines()[-1].startswith(f"{step}: fault: {name}")


@pytest.mark.slow
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


def test_a_lower_memory_limit_of_the_machine_applies_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_MEMORY_MB", "65536")
    command = f"ulimit -v 8000000 && exec {sys.executable} -m service check"
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert answer.stdout.splitlines()[-1] == "workers: ok, 1 started"
