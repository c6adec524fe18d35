"""The JSON of a reply, however it is framed: one value, an array, lines of JSON, server-sent events."""

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
Bytes = bytes | bytearray

# Longer strings are lifted out before the JSON is parsed: a picture in base64 would be copied several times, and the
# parser holds the interpreter, and with it the event loop, until it has read all of it.
LONG = 4096
# The most JSON beside them: a parsed value takes some 25 times its text.
MAX_JSON_BYTES = 16 * 1024 * 1024
MAX_EVENT_LINES = 100_000
# Python refuses to parse an integer of thousands of digits; no number of Gemini's has that many.
MAX_DIGITS = 20

_EVENTS = re.compile(rb"\s*(?:data|event|id|retry)?:")
_DATA = re.compile(rb"[ \t]*data:")
_OTHER_FIELD = re.compile(rb"[ \t]*(?:event|id|retry)?:")
# White space, commas, record separators, byte order marks, and what keeps a browser from running JSON as a script.
_BETWEEN = re.compile(r"(?:[\s,\x1e\ufeff]|\)\]\}')*")
_END = "[DONE]"
_MARK = secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Long:
    """A long string of the JSON, still as it came: UTF-8, and `escaped` if it has JSON's escapes in it."""

    data: memoryview
    escaped: bool

    def text(self) -> str:
        text = bytes(self.data).decode(errors="replace")
        try:
            return str(json.loads(f'"{text}"', strict=False)) if self.escaped else text
        except ValueError:
            return text

    def encoded(self) -> bytes | memoryview:
        """The same as bytes, without a copy where nothing is escaped."""
        return self.text().encode(errors="replace") if self.escaped else self.data


@dataclass(slots=True)
class Answer:
    """The objects of a reply in turn. `whole` is False when some of it could not be read."""

    objects: list[Json] = field(default_factory=list)
    whole: bool = True
    _long: dict[str, Long] = field(default_factory=dict)

    def add(self, text: Bytes) -> None:
        """Read the values that follow each other in `text`, up to what is no JSON."""
        try:
            for value in _values(self._lifted(text)):
                self._take(value)
        except (ValueError, RecursionError):
            self.whole = False

    def _take(self, value: object) -> None:
        if isinstance(value, list):
            for each in value:
                self._take(each)
        elif isinstance(value, dict):
            self.objects.append(value)

    def _lifted(self, text: Bytes) -> str:
        """The JSON with a name in place of each long string; raises ValueError if it is too much even so."""
        pieces: list[Bytes] = []
        done = size = 0
        for start, end in _strings(text):
            if size + start - done > MAX_JSON_BYTES:
                break
            if end - start > LONG:
                name = f"{_MARK}{len(self._long)}"
                self._long[name] = Long(memoryview(text)[start:end], text.find(b"\\", start, end) >= 0)
                pieces += [text[done:start], name.encode()]
                size += start - done
                done = end
        if size + len(text) - done > MAX_JSON_BYTES:
            raise ValueError("too much JSON")
        return b"".join([*pieces, text[done:]]).decode(errors="replace")

    def long(self, value: object) -> Long | None:
        return self._long.get(value) if isinstance(value, str) else None

    def text(self, value: object) -> str:
        """A string of the JSON, long or not; empty for any other value."""
        long = self.long(value)
        return long.text() if long else value if isinstance(value, str) else ""


def read(body: Bytes) -> Answer:
    """Everything in a body that is JSON; to be called in a thread."""
    answer = Answer()
    text = _utf8(body)
    if _EVENTS.match(text):
        for event in _events(text, answer):
            answer.add(event)
    else:
        answer.add(text)
    return answer


def _utf8(body: Bytes) -> Bytes:
    encoding = json.detect_encoding(bytes(body[:4]))
    if encoding.startswith("utf-8"):
        return body.removeprefix(b"\xef\xbb\xbf")
    return body.decode(encoding, errors="replace").encode(errors="replace")


def _values(text: str) -> Iterator[Any]:
    # Not strict: a string may hold line ends, as base64 does that was wrapped after it was put there.
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
    """Where each string of the JSON begins and ends, without its quotes."""
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


def _events(body: Bytes, answer: Answer) -> Iterator[Bytes]:
    """The data of each server-sent event, in one `data:` line or several, and at the end what stood in no field."""
    data: list[Bytes] = []
    rest: list[Bytes] = []
    for line in _lines(body, answer):
        if match := _DATA.match(line):
            data.append(line[match.end() :])
        elif not line.strip():
            yield b"\n".join(data)
            data = []
        elif not _OTHER_FIELD.match(line):
            rest.append(line)
    yield b"\n".join(data)
    yield b"\n".join(rest)


def _lines(text: Bytes, answer: Answer) -> Iterator[Bytes]:
    end = b"\n" if b"\n" in text else b"\r"
    at = 0
    for _ in range(MAX_EVENT_LINES):
        found = text.find(end, at)
        if found < 0:
            yield text[at:]
            return
        yield text[at:found]
        at = found + 1
    answer.whole = False
