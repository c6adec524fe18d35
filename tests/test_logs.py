"""Text and JSON log lines, escaping, and buffered writes."""

import asyncio
import errno
import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Literal

import pytest

from service.logs import BATCH_BYTES, REQUEST, AccessRecord, BatchHandler, set_up_logging
from tests.helpers import until


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Restore the root logger after the test."""
    root, quiet = logging.getLogger(), logging.getLogger("aiohttp")
    handlers, level, quiet_level = root.handlers[:], root.level, quiet.level
    root.handlers = []
    yield
    root.handlers = handlers
    root.setLevel(level)
    quiet.setLevel(quiet_level)


def test_a_text_line_names_its_request(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info", "text")
    token = REQUEST.set("req_1")
    logging.getLogger("service").info("swept %d files", 3)
    REQUEST.reset(token)
    logging.getLogger("service").info("no request")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("INFO    req_1 swept 3 files")
    assert second.endswith("INFO    - no request")


def test_a_json_line_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info", "json")
    logging.getLogger("service").info("Grüße\nund mehr", extra={"fields": {"status": 200}})
    [line] = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert record.pop("time").endswith("+00:00")
    assert record == {
        "level": "info",
        "logger": "service",
        "request_id": "-",
        "message": "Grüße\nund mehr",
        "status": 200,
    }


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_line_shows_a_secret_or_what_a_terminal_would_obey(
    capsys: pytest.CaptureFixture[str], log_format: Literal["text", "json"]
) -> None:
    set_up_logging("info", log_format, "the-key")
    words = "\x1b[31m\u202e the-key http://user:word@proxy:3128 \x9b"
    logging.getLogger("service").info("it said %s", words)
    try:
        raise ZeroDivisionError(words)
    except ZeroDivisionError:
        logging.getLogger("google_genai").exception("a fault")
    written = capsys.readouterr().err
    assert written.count("[key]") == 2
    assert written.count("[user]@proxy") == 2
    assert written.count("u202e") == 2
    assert not {"\x1b", "\u202e", "\x9b"} & {*written}
    assert "the-key" not in written
    assert "word@" not in written


def test_a_line_of_text_cannot_be_forged(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info", "text")
    logging.getLogger("service").info("it said\n2026-01-01 00:00:00,000 INFO - all is well")
    [line] = capsys.readouterr().err.splitlines()
    assert "it said\\u000a2026" in line


def test_an_exception_stays_in_its_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info", "json")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        logging.getLogger("service").exception("a fault")
    [line] = capsys.readouterr().err.splitlines()
    assert "ZeroDivisionError" in json.loads(line)["exception"]
    assert sys.exc_info() == (None, None, None)


@pytest.mark.parametrize(("level", "lines"), [("debug", 1), ("info", 1), ("warning", 0), ("error", 0)])
def test_the_level_holds(capsys: pytest.CaptureFixture[str], level: str, lines: int) -> None:
    set_up_logging(level, "text")
    logging.getLogger("service").info("a line")
    logging.getLogger("aiohttp.access").info("GET /api/download/x?signature=secret")
    assert len(capsys.readouterr().err.splitlines()) == lines


def test_an_answer_is_a_record_like_any_other(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    logging.getLogger("service.access").handle(AccessRecord("GET", "/", 200, 0.5))
    [record] = caplog.records
    assert (record.name, record.levelname, record.getMessage()) == ("service.access", "INFO", "GET '/' 200 0.5 ms")
    assert vars(record).keys() >= vars(logging.makeLogRecord({})).keys()
    assert "GET '/' 200 0.5 ms" in caplog.text


# Batches


class Lines(io.StringIO):
    """The written batches."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []
        self.full = False

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "no space")
        if text:
            self.written.append(text)
        return len(text)


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def log(lines: Lines) -> logging.Logger:
    logger = logging.Logger("batches")
    logger.addHandler(BatchHandler(lines))
    return logger


async def test_lines_are_written_together(log: logging.Logger, lines: Lines) -> None:
    for number in range(3):
        log.info("line %d", number)
    assert lines.written == []
    await until(lambda: bool(lines.written))
    log.info("later")
    await until(lambda: len(lines.written) > 1)
    assert lines.written == ["line 0\nline 1\nline 2\n", "later\n"]


async def test_a_warning_goes_at_once_behind_what_came_before_it(log: logging.Logger, lines: Lines) -> None:
    log.info("before")
    log.warning("now")
    assert lines.written == ["before\nnow\n"]


@pytest.mark.parametrize("letter", ["0", "é", "世", "\udcff"])
async def test_no_more_waits_than_a_pipe_takes_whole(log: logging.Logger, lines: Lines, letter: str) -> None:
    for number in range(1000):
        log.info("%d %s", number, letter * 100)
    assert len(lines.written) > 900 * 101 // BATCH_BYTES
    assert max(len(batch.encode(errors="backslashreplace")) for batch in lines.written) <= BATCH_BYTES
    log.handlers[0].flush()
    assert [int(line.split()[0]) for line in "".join(lines.written).splitlines()] == [*range(1000)]


async def test_threads_lose_no_line(log: logging.Logger, lines: Lines) -> None:
    def work() -> None:
        for _ in range(200):
            log.info("x" * 50)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        log.info("x" * 50)
        await asyncio.sleep(0)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    log.handlers[0].flush()
    assert "".join(lines.written) == ("x" * 50 + "\n") * 1000


def test_without_a_loop_a_line_goes_at_once(log: logging.Logger, lines: Lines) -> None:
    log.info("now")
    assert lines.written == ["now\n"]


async def test_a_full_disk_raises_nothing(log: logging.Logger, lines: Lines) -> None:
    lines.full = True
    log.info("lost")
    log.warning("lost")
    lines.full = False
    log.warning("kept")
    assert lines.written == ["kept\n"]


@pytest.mark.parametrize(("end", "status"), [("", 0), ("sys.exit(3)", 3), ("1 / 0", 1)])
def test_what_waits_is_written_at_the_end(end: str, status: int) -> None:
    program = f"""
import asyncio, logging, sys
from service.logs import set_up_logging
set_up_logging("info", "text")
async def main():
    logging.info("the last line")
    {end}
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert done.stderr.count("the last line\n") == 1
