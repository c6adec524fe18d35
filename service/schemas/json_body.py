"""Reads a JSON body (RFC 8259) strictly, within limits that hold before anything is built from it."""

import json
import re
from decimal import Decimal
from typing import NoReturn

from service.errors import DuplicateField, MalformedBody, NotUtf8

MAX_DEPTH = 32
# Strings, brackets and commas: enough for 1,000 fields.
MAX_TOKENS = 4_000
# A number whose shortest text would be longer keeps the text that was sent.
_MAX_DIGITS = 100
# A whole string, so that brackets in it do not count, or what begins, ends or separates values. A string that does not
# end reaches to the end of the text: the search takes linear time whatever is sent.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{},]', re.DOTALL)
_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}


class Number(str):
    """A number as its shortest decimal text: `0.70` is `0.7`, `1e2` and `100.0` are `100`, `-0` is `0`."""

    __slots__ = ()


Json = None | bool | str | Number | list["Json"] | dict[str, "Json"]
JsonObject = dict[str, Json]


def read_json(data: bytes) -> JsonObject:
    """The object that a body is; raises MalformedBody, DuplicateField (at any depth), NotUtf8.

    A byte order mark is ignored, as RFC 8259 allows; UTF-16 and UTF-32 are not read.
    """
    text = _decoded(data)
    _check_shape(text)
    try:
        value = json.loads(
            text, parse_int=_number, parse_float=_number, parse_constant=_no_number, object_pairs_hook=_object
        )
    except json.JSONDecodeError as error:
        raise MalformedBody(f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    if not isinstance(value, dict):
        raise MalformedBody("the body is not a JSON object")
    _check_surrogates(value)
    return value


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise NotUtf8("the body is not UTF-8") from None


def _check_shape(text: str) -> None:
    """Refuse text that nests too deeply or holds too many values, before the parser spends stack and memory on it."""
    depth = 0
    for count, token in enumerate(_TOKEN.finditer(text)):
        depth += _STEPS.get(text[token.start()], 0)
        if depth > MAX_DEPTH:
            raise MalformedBody(f"the body nests more than {MAX_DEPTH} levels deep")
        if count >= MAX_TOKENS:
            raise MalformedBody("the body holds too many values")


def _number(literal: str) -> Number:
    """The number's shortest text. Longer ones than any field takes stay as they are, whatever their exponent."""
    _, _, exponent = literal.lower().partition("e")
    if len(literal) > _MAX_DIGITS or abs(int(exponent or 0)) > _MAX_DIGITS:
        return Number(literal)
    value = Decimal(literal)
    text = f"{value:f}" if value else "0"
    return Number(text.rstrip("0").rstrip(".") if "." in text else text)


def _no_number(literal: str) -> NoReturn:
    raise MalformedBody(f"the body is not JSON: it has no {literal}")


def _object(pairs: list[tuple[str, Json]]) -> JsonObject:
    found: JsonObject = {}
    for name, value in pairs:
        if name in found:
            raise DuplicateField(f"{name[:60]!r} came twice", param=name[:60])
        found[name] = value
    return found


def _check_surrogates(value: JsonObject) -> None:
    r"""Refuse half a surrogate pair, which only an escape such as `\ud800` can bring, and UTF-8 cannot encode."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise NotUtf8("a string of the body holds half a surrogate pair") from None
