"""JSON in every framing."""

import json

import pytest

from service.gemini import wire
from service.gemini.wire import LONG, MAX_JSON_BYTES

ONE, TWO = {"a": 1}, {"b": [2, {"c": "d"}]}


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1}{"b": [2, {"c": "d"}]}',
        b'[{"a": 1}, {"b": [2, {"c": "d"}]}]',
        b'[[{"a": 1}], 7, null, "x", [[{"b": [2, {"c": "d"}]}]]]',
        b'\xef\xbb\xbf{"a": 1}\n\n{"b": [2, {"c": "d"}]}\n',
        b'\x1e{"a": 1}\n\x1e{"b": [2, {"c": "d"}]}\n',
        b')]}\'\n[{"a": 1},{"b": [2, {"c": "d"}]}]',
        b'data: {"a": 1}\n\ndata: {"b": [2, {"c": "d"}]}\n\ndata: [DONE]\n\n',
        b'data:{"a": 1}\r\rdata:{"b": [2, {"c": "d"}]}\r\r',
        b'\n\ndata: {"a": 1}\ndata: {"b": [2, {"c": "d"}]}',
        b': "comment\r\nid: "7\r\nretry: 5\r\ndata: {"a":\r\ndata: 1}\r\n\r\ndata:[{"b": [2, {"c": "d"}]}]\r\n',
        b'data: {"a": 1}\n\n{"b": [2,\n {"c": "d"}]}\n',
        json.dumps([ONE, TWO]).encode("utf-16"),
        json.dumps([ONE, TWO]).encode("utf-16-le"),
        json.dumps([ONE, TWO]).encode("utf-32-be"),
    ],
)  # fmt: skip
def test_the_objects_of_any_framing_are_parsed(body: bytes) -> None:
    answer = wire.read(body)
    assert (answer.objects, answer.complete) == ([ONE, TWO], True)


@pytest.mark.parametrize(
    ("body", "objects"),
    [
        (b'{"a": 1}<html>', [ONE]),
        (b'{"a": 1}{"b": [2, {"c"', [ONE]),
        (b'data: {"a": 1}\n\ndata: ping\n\n', [ONE]),
        (b"<!doctype html>", []),
        (b"[" * 100_000, []),
        (b'{"a": "' + b"x" * 2 * LONG, []),
        (b"\x89PNG\r\n\x1a\n\x00\x00", []),
    ],
)
def test_a_part_that_cannot_be_parsed_is_noted(body: bytes, objects: list[object]) -> None:
    answer = wire.read(body)
    assert (answer.objects, answer.complete) == (objects, False)


@pytest.mark.parametrize("body", [b"", b" \n", b"[]", b"null", b"7", b'"text"'])
def test_a_body_without_objects_is_complete(body: bytes) -> None:
    assert (wire.read(body).objects, wire.read(body).complete) == ([], True)


@pytest.mark.parametrize(
    "text", ["x" * (LONG + 1), '\\"' * LONG, "\\" * (2 * LONG), "é\u2028" * LONG, "a/b+c=\r\n\t\x7f" * LONG]
)
def test_a_long_string_is_restored(text: str) -> None:
    answer = wire.read(json.dumps({"long": text, "short": "é"}).encode())
    [found] = answer.objects
    assert found["short"] == "é"
    assert len(found["long"]) < LONG
    assert answer.text(found["long"]) == text
    assert answer.text("short") == "short"
    assert answer.text(7) == ""


def test_a_long_string_without_escapes_is_not_copied() -> None:
    body = json.dumps({"long": "x" * (LONG + 1)}).encode()
    long = (answer := wire.read(body)).long(answer.objects[0]["long"])
    assert long
    assert isinstance(long.encoded(), memoryview)
    assert long.data.obj is body


def test_json_above_the_limit_is_not_parsed() -> None:
    answer = wire.read(b'{"a": [' + b"1," * (MAX_JSON_BYTES // 2) + b"1]}")
    assert (answer.objects, answer.complete) == ([], False)


@pytest.mark.parametrize("digits", [1, 20, 400, 5000])
def test_a_number_of_any_length_is_parsed(digits: int) -> None:
    assert wire.read(b'{"a": ' + b"9" * digits + b"}").objects[0]["a"] > 8


def test_invalid_utf8_is_replaced() -> None:
    assert wire.read(b'{"a": "x\xff", "b": 1}').objects == [{"a": "x\ufffd", "b": 1}]


def test_unescaped_line_ends_in_a_string_are_accepted() -> None:
    assert wire.read(b'{"a": "x\r\ny"}').objects == [{"a": "x\r\ny"}]


def test_the_number_of_event_lines_is_bounded() -> None:
    assert not wire.read(b"data:\n" + b"\n" * (wire.MAX_EVENT_LINES + 1)).complete
