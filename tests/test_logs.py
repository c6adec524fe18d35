"""What a log line looks like, for people and for machines."""

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from service.logs import REQUEST, set_up_logging


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave the root logger to the other tests as it was."""
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


def test_an_exception_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
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
