"""Parses the JSON of a reply in any framing: a value, an array, JSON lines, server-sent events."""

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
Bytes = bytes | bytearray

# Longer strings are replaced by placeholders before the JSON is parsed: a picture in base64 would be copied several
# times, and the parser holds the GIL, and so blocks the event loop, until it has parsed everything.
LONG = 4096
# The limit for the JSON without them: a parsed value takes about 25 times the memory of its text.
MAX_JSON_BYTES = 16 * 1024 * 1024
MAX_EVENT_LINES = 100_000
# Longer integers are parsed as floats: Python refuses to parse thousands of digits.
MAX_DIGITS = 20

_EVENTS = re.compile(rb"\s*(?:data|event|id|retry)?:")
_DATA = re.compile(rb"[ \t]*data:")
_OTHER_FIELD = re.compile(rb"[ \t]*(?:event|id|retry)?:")
# White space, commas, record separators, byte order marks, and the prefix against JSON hijacking.
_BETWEEN = re.compile(r"(?:[\s,\x1e\ufeff]|\)\]\}')*")
_END = "[DONE]"
_PLACEHOLDER = secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Long:
    """A long string of the JSON as received: UTF-8, with JSON escapes if `escaped`."""

    data: memoryview
    escaped: bool

    def text(self) -> str:
        text = bytes(self.data).decode(errors="replace")
        try:
            return str(json.loads(f'"{text}"', strict=False)) if self.escaped else text
        except ValueError:
            return text

    def encoded(self) -> bytes | memoryview:
        """The string as UTF-8, without a copy if it has no escapes."""
        return self.text().encode(errors="replace") if self.escaped else self.data


@dataclass(slots=True)
class ParsedReply:
    """The JSON objects of a reply, in order. `complete` is False if a part of it could not be parsed."""

    objects: list[Json] = field(default_factory=list)
    complete: bool = True
    _long: dict[str, Long] = field(default_factory=dict)

    def add(self, text: Bytes) -> None:
        """Parse the values in `text`, up to the first that is not JSON."""
        try:
            for value in _values(self._with_placeholders(text)):
                self._take(value)
        except (ValueError, RecursionError):
            self.complete = False

    def _take(self, value: object) -> None:
        if isinstance(value, list):
            for each in value:
                self._take(each)
        elif isinstance(value, dict):
            self.objects.append(value)

    def _with_placeholders(self, text: Bytes) -> str:
        """The JSON with a placeholder for each long string; raises ValueError if it still is too long."""
        pieces: list[Bytes] = []
        copied = size = 0
        for start, end in _strings(text):
            if size + start - copied > MAX_JSON_BYTES:
                break
            if end - start > LONG:
                placeholder = f"{_PLACEHOLDER}{len(self._long)}"
                self._long[placeholder] = Long(memoryview(text)[start:end], text.find(b"\\", start, end) >= 0)
                pieces += [text[copied:start], placeholder.encode()]
                size += start - copied
                copied = end
        if size + len(text) - copied > MAX_JSON_BYTES:
            raise ValueError("too much JSON")
        return b"".join([*pieces, text[copied:]]).decode(errors="replace")

    def long(self, value: object) -> Long | None:
        """The long string whose placeholder `value` is, if any."""
        return self._long.get(value) if isinstance(value, str) else None

    def text(self, value: object) -> str:
        """A string of the JSON, with its placeholder resolved; empty for any other value."""
        long = self.long(value)
        return long.text() if long else value if isinstance(value, str) else ""


def read(body: Bytes) -> ParsedReply:
    """Parse all JSON in a body. Slow: to be called in a thread."""
    parsed = ParsedReply()
    text = _utf8(body)
    if _EVENTS.match(text):
        for event in _events(text, parsed):
            parsed.add(event)
    else:
        parsed.add(text)
    return parsed


def _utf8(body: Bytes) -> Bytes:
    encoding = json.detect_encoding(bytes(body[:4]))
    if encoding.startswith("utf-8"):
        return body.removeprefix(b"\xef\xbb\xbf")
    return body.decode(encoding, errors="replace").encode(errors="replace")


def _values(text: str) -> Iterator[Any]:
    # Not strict: a string may contain line ends, if its base64 was wrapped after it was encoded as JSON.
    decoder = json.JSONDecoder(strict=False, parse_int=_number)
    at = _after(text, 0)
    while at < len(text):
        if text.startswith(_END, at):
            at += len(_END)
        else:
            value, at = decoder.raw_decode(text, at)
            yield value
        at = _after(text, at)


def _after(text: str, at: int) -> int:
    match = _BETWEEN.match(text, at)
    return match.end() if match else at


def _number(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_DIGITS else float(digits)


def _strings(text: Bytes) -> Iterator[tuple[int, int]]:
    """The start and end of each string of the JSON, without its quotes."""
    start = text.find(b'"') + 1
    while start and (end := _closing_quote(text, start)) >= 0:
        yield start, end
        start = text.find(b'"', end + 1) + 1


def _closing_quote(text: Bytes, start: int) -> int:
    end = text.find(b'"', start)
    while end > 0 and _backslashes(text, start, end) % 2:
        end = text.find(b'"', end + 1)
    return end


def _backslashes(text: Bytes, start: int, end: int) -> int:
    at = end
    while at > start and text[at - 1] == 0x5C:
        at -= 1
    return end - at


def _events(body: Bytes, parsed: ParsedReply) -> Iterator[Bytes]:
    """The data of each server-sent event, and at the end all lines that belong to no field."""
    data: list[Bytes] = []
    rest: list[Bytes] = []
    for line in _split_lines(body, parsed):
        if match := _DATA.match(line):
            data.append(line[match.end() :])
        elif not line.strip():
            yield b"\n".join(data)
            data = []
        elif not _OTHER_FIELD.match(line):
            rest.append(line)
    yield b"\n".join(data)
    yield b"\n".join(rest)


def _split_lines(text: Bytes, parsed: ParsedReply) -> Iterator[Bytes]:
    end = b"\n" if b"\n" in text else b"\r"
    at = 0
    for _ in range(MAX_EVENT_LINES):
        found = text.find(end, at)
        if found < 0:
            yield text[at:]
            return
        yield text[at:found]
        at = found + 1
    parsed.complete = False
