"""JSON bodies are read strictly, and nothing that is sent costs more than a linear pass over it."""

import contextlib
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import DuplicateField, MalformedBody, NotUtf8, ServiceError
from service.schemas.json_body import MAX_DEPTH, Number, read_json

MIB = 1024 * 1024


def test_an_object_of_every_kind_of_value() -> None:
    body = b' {"a": "x", "b": true, "c": null, "d": [1, "y"], "e": {"f": 2.50}}\r\n'
    assert read_json(body) == {"a": "x", "b": True, "c": None, "d": ["1", "y"], "e": {"f": "2.5"}}


@pytest.mark.parametrize(
    ("literal", "text"),
    [
        ("1", "1"), ("0", "0"), ("-0", "0"), ("-0.0", "0"), ("0e5", "0"), ("0.70", "0.7"), ("0.7", "0.7"),
        ("1e2", "100"), ("100.0", "100"), ("1E+2", "100"), ("10e-1", "1"), ("70e-2", "0.7"), ("1e-05", "0.00001"),
        ("-1.50", "-1.5"), ("100", "100"), ("1200.00", "1200"), ("0.1000000000000000055", "0.1000000000000000055"),
        ("123456789012345678901234567890.0", "123456789012345678901234567890"), ("1E400", "1E400"),
        ("1e-400", "1e-400"), ("1e99999999999999999999", "1e99999999999999999999"),
    ],
)  # fmt: skip
def test_a_number_is_its_shortest_decimal_text(literal: str, text: str) -> None:
    value = read_json(b'{"number": %s}' % literal.encode())["number"]
    assert isinstance(value, Number)
    assert value == text


@pytest.mark.parametrize("exponent", ["9" * 90, "+" + "0" * 95 + "2"])
def test_an_exponent_of_many_digits_is_not_calculated(exponent: str) -> None:
    assert read_json(b'{"number": 1e%s}' % exponent.encode()).keys() == {"number"}


def test_a_number_of_a_million_digits_stays_a_text() -> None:
    digits = "1" * 1_000_000
    assert read_json(b'{"number": %s}' % digits.encode()) == {"number": digits}
    assert read_json(b'{"number": 0.%s}' % digits.encode()) == {"number": f"0.{digits}"}


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"null", b"true", b"1", b'"x"', b"[]", b'[{"a": 1}]', b"{", b"}", b'{"a"}', b'{"a": }', b'{"a": 1,}',
        b'{"a": 1}{"a": 1}', b'{"a": 1} x', b"{'a': 1}", b"{a: 1}", b'{"a": 1} // comment', b'/* */ {"a": 1}',
        b'{"a": NaN}', b'{"a": Infinity}', b'{"a": -Infinity}', b'{"a": nan}', b'{"a": 01}', b'{"a": +1}', b'{"a": .5}',
        b'{"a": 1.}', b'{"a": 1e}', b'{"a": 0x10}', b'{"a": 1_000}', b'{"a": True}', b'{"a": undefined}',
        b'{"a": "x\ny"}', b'{"a": "\0"}', b'{"a": "\\x41"}', b'{"a": "\\u00g1"}', b'{"a": "\\u12_4"}', b'{"a": "x',
        b'{"a": "x\\', b'{"a": 1}\0', b"\0{}", b"script=hello", "\u00a0{}".encode(), '{"a": \u0661}'.encode(),
        '{"a": 1}'.encode("utf-16-le"), '{"a": 1}'.encode("utf-32-le"), b"\xef\xbb\xbf\xef\xbb\xbf{}",
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        read_json(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 1}', b'{"a": 1, "\\u0061": 1}', b'{"x": {"a": 1, "b": 2, "a": 3}}',
        b'{"x": [[{"a": 1, "a": 2}]]}',
        b'{"": 1, "": 2}', b'{"a": null, "a": null}', '{"é": 1, "\\u00e9": 1}'.encode(),
    ],
)  # fmt: skip
def test_a_name_twice_at_any_depth_is_a_duplicate(body: bytes) -> None:
    with pytest.raises(DuplicateField, match="came twice"):
        read_json(body)


def test_names_that_only_look_the_same_are_different() -> None:
    assert read_json('{"é": 1, "e\u0301": 2, "É": 3, "x": {"x": 4}}'.encode()) == {
        "é": "1", "e\u0301": "2", "É": "3", "x": {"x": "4"},
    }  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        rb'{"a": "\ud800"}', rb'{"a": "\udc00"}', rb'{"a": "\uD83D x"}', rb'{"a": "\ude00\ud83d"}',
        rb'{"a": "\ud83d\ud83d\ude00"}', rb'{"a": "\ud83d\\\ude00"}', rb'{"a": ["\udfff"]}', rb'{"\ud800": 1}',
        rb'{"a": {"b": {"\udc00": 1}}}', b'{"a": "\xed\xa0\x80"}', b'{"a": "\xff"}', b'{"a": "caf\xe9"}',
        b'{"a": "\xc0\x80"}', '{"a": 1}'.encode("utf-16"),
    ],
)  # fmt: skip
def test_text_that_utf8_has_not_is_refused(body: bytes) -> None:
    with pytest.raises(NotUtf8):
        read_json(body)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (rb'"\ud83d\ude00"', "😀"), (rb'"\uD83D\uDE00"', "😀"), (rb'"\\ud800"', "\\ud800"), (rb'"\u0000"', "\0"),
        (rb'"\u00e9\/\b\f\n\r\t\""', 'é/\b\f\n\r\t"'), ("\"😀\u2028\"".encode(), "😀\u2028"), (b'"[[{,"', "[[{,"),
        (rb'"\"[,"', '"[,'),
    ],
)  # fmt: skip
def test_a_string_is_what_its_escapes_say(body: bytes, text: str) -> None:
    assert read_json(b'{"a": %s}' % body) == {"a": text}


def test_a_byte_order_mark_is_ignored() -> None:
    assert read_json(b'\xef\xbb\xbf{"a": 1}') == {"a": "1"}


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":', '["', '"[', '{"a":"\\'])
@pytest.mark.parametrize("closing", ["", "]", "}", '"]'])
def test_a_million_of_anything_is_refused(opening: str, closing: str) -> None:
    text = (opening * MIB)[:MIB] + (closing * MIB)[:MIB]
    for body in (text, f'{{"a": {text}}}'):
        with pytest.raises(MalformedBody):
            read_json(body.encode())


def test_arrays_and_objects_nest_so_deeply_and_no_deeper() -> None:
    inner = MAX_DEPTH - 1
    assert read_json(b'{"a": %s}' % (b"[" * inner + b"]" * inner))
    with pytest.raises(MalformedBody, match="levels deep"):
        read_json(b'{"a": %s}' % (b"[" * (inner + 1) + b"]" * (inner + 1)))


def test_a_body_may_hold_a_thousand_values_but_not_ten_thousand() -> None:
    def body(count: int) -> bytes:
        return json.dumps({str(number): "x" for number in range(count)}).encode()

    assert len(read_json(body(1_000))) == 1_000
    assert len(read_json(body(1_000).replace(b'"x"', b"1"))) == 1_000
    for many in (body(10_000), b'{"a": %s}' % json.dumps([1] * 10_000).encode()):
        with pytest.raises(MalformedBody, match="too many values"):
            read_json(many)


def test_a_large_text_is_read() -> None:
    script = '"[,\\é😀' * 20_000
    for ascii_only in (True, False):
        assert read_json(json.dumps({"script": script}, ensure_ascii=ascii_only).encode()) == {"script": script}


@pytest.mark.parametrize("body", [b'{"%s": 1, "%s": 2}' % (b"n" * 500_000, b"n" * 500_000), b"{" + b"x" * MIB])
def test_an_error_does_not_repeat_the_body(body: bytes) -> None:
    with pytest.raises(ServiceError) as caught:
        read_json(body)
    assert len(caught.value.detail) < 200


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=6,
)


def with_numbers_as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: with_numbers_as_text(each) for name, each in value.items()}
    if isinstance(value, list):
        return [with_numbers_as_text(each) for each in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


@given(st.dictionaries(st.text(max_size=9), JSON_VALUES, max_size=3), st.booleans())
@settings(max_examples=30, deadline=None)
def test_what_another_program_writes_is_read_as_it_was(value: dict[str, Any], ascii_only: bool) -> None:
    assert read_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == with_numbers_as_text(value)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9))
@settings(max_examples=60, deadline=None)
def test_a_number_keeps_its_value_and_has_no_needless_digit(number: Decimal) -> None:
    text = str(read_json(f'{{"number": {number}}}'.encode())["number"])
    assert Decimal(text) == number
    assert "e" not in text.lower()
    assert not ("." in text and text.endswith(("0", ".")))


@given(st.binary(max_size=60) | st.text('[]{}",:\\ud8e0-+.1NaInfty ', max_size=40).map(str.encode))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_an_object_or_an_error_of_ours(body: bytes) -> None:
    for data in (body, b'{"a": ' + body + b"}"):
        with contextlib.suppress(MalformedBody, DuplicateField, NotUtf8):
            assert isinstance(read_json(data), dict)
