"""Kinds of values of fields: how the text of each is parsed, what is allowed in words, and as a JSON Schema."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from service.budgets import MAX_BYTES, RULE
from service.imaging.formats import FORMATS, NAMES, Format, formats_of, listed
from service.imaging.plan import WHOLE_SHARE, Focus
from service.values import parse_colour

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Schema = Mapping[str, Any]

_BOOLEANS = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}
_SHARE = re.compile(r"(?!\.$)[0-9]?\.?[0-9]{0,4}", re.ASCII)
_COORDINATE = re.compile(r"[01](?:\.[0-9]{1,4})?", re.ASCII)
# Whole numbers may have leading zeros, but not without end.
_MAX_DIGITS = 10


class Kind(Protocol[T_co]):
    """One kind of value."""

    @property
    def allowed(self) -> str:
        """The rule in words, which completes `width='x' is not allowed: …`."""

    @property
    def schema(self) -> Schema:
        """The rule as a JSON Schema, of the value as JSON has it."""

    def parse(self, text: str) -> T_co:
        """The value of a text that is not empty; raises ValueError for one that is not allowed."""


@dataclass(frozen=True, slots=True)
class Text:
    """Any text: it is checked where its meaning is known."""

    allowed: str
    schema: Schema

    def parse(self, text: str) -> str:
        return text


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text that a pattern matches in whole."""

    pattern: re.Pattern[str]
    allowed: str

    @property
    def schema(self) -> Schema:
        return {"type": "string", "pattern": f"^{self.pattern.pattern}$"}

    def parse(self, text: str) -> str:
        if not self.pattern.fullmatch(text):
            raise ValueError
        return text


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number within bounds, in ASCII digits."""

    low: int
    high: int

    @property
    def allowed(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    @property
    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}

    def parse(self, text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and self.low <= int(text) <= self.high):
            raise ValueError
        return int(text)


@dataclass(frozen=True, slots=True)
class Boolean:
    allowed: str = "true, false, 1, 0, on or off"

    @property
    def schema(self) -> Schema:
        return {"type": "boolean"}

    def parse(self, text: str) -> bool:
        try:
            return _BOOLEANS[text.lower()]
        except KeyError:
            raise ValueError from None


@dataclass(frozen=True, slots=True)
class Choice(Generic[T]):
    """One of some words."""

    words: tuple[T, ...]

    @property
    def allowed(self) -> str:
        return ", ".join(map(str, self.words))

    @property
    def schema(self) -> Schema:
        return {"type": "string", "enum": list(self.words)}

    def parse(self, text: str) -> T:
        return self.words[self.words.index(text)]


@dataclass(frozen=True, slots=True)
class Share:
    """A number from 0 to 1 with at most 4 decimals, in units of 1/10,000."""

    allowed: str = "a number from 0 to 1 with at most 4 decimals"

    @property
    def schema(self) -> Schema:
        return {"type": "number", "minimum": 0, "maximum": 1}

    def parse(self, text: str) -> int:
        if not _SHARE.fullmatch(text):
            raise ValueError
        return _ten_thousandths(text)


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a picture in ten-thousandths of its width and height, or `auto`."""

    allowed: str = "auto, or x,y such as 0.5,0.25, each from 0 to 1 with at most 4 decimals"

    @property
    def schema(self) -> Schema:
        coordinate = r"(0(\.[0-9]{1,4})?|1(\.0{1,4})?)"
        return {"type": "string", "pattern": f"^(auto|{coordinate},{coordinate})$"}

    def parse(self, text: str) -> Focus:
        if text == "auto":
            return "auto"
        x, y = text.split(",")
        if not (_COORDINATE.fullmatch(x) and _COORDINATE.fullmatch(y)):
            raise ValueError
        return _ten_thousandths(x), _ten_thousandths(y)


@dataclass(frozen=True, slots=True)
class FormatList:
    """Formats without duplicates, in the order of the table."""

    allowed: str = f"a comma-separated list of {listed(FORMATS, 'and')}"

    @property
    def schema(self) -> Schema:
        name = f"({'|'.join(NAMES)})"
        return {"type": "string", "pattern": f"^{name}(,{name})*$"}

    @property
    def json_schema(self) -> Schema:
        """As `schema`, or a list."""
        return {"anyOf": [{"type": "array", "items": {"type": "string", "enum": list(NAMES)}}, self.schema]}

    def parse(self, text: str) -> Sequence[Format]:
        return formats_of(text.split(","))


@dataclass(frozen=True, slots=True)
class ByteBudgets:
    """The most bytes of any file, or of the files of some formats by their names, in the order given."""

    allowed: str = RULE

    @property
    def schema(self) -> Schema:
        each = f"({'|'.join(NAMES)}):[1-9][0-9]{{0,8}}"
        return {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MAX_BYTES},
                {"type": "string", "pattern": f"^{each}(,{each})*$"},
            ]
        }

    @property
    def json_schema(self) -> Schema:
        """As `schema`, or an object of formats."""
        number = _BYTES.schema
        by_format = {"type": "object", "properties": dict.fromkeys(NAMES, number), "additionalProperties": False}
        return {"anyOf": [*self.schema["anyOf"], by_format]}

    def parse(self, text: str) -> int | Sequence[tuple[str, int]]:
        if ":" not in text:
            return _BYTES.parse(text)
        parts = [part.partition(":") for part in text.split(",")]
        return [(name, _BYTES.parse(most.strip())) for name, _, most in parts]


@dataclass(frozen=True, slots=True)
class Colour:
    """A colour as red, green and blue, each 0-255."""

    allowed: str = "a colour such as #ffffff"

    @property
    def schema(self) -> Schema:
        return {"type": "string", "pattern": "^#[0-9a-fA-F]{6}$"}

    def parse(self, text: str) -> tuple[int, int, int]:
        return parse_colour(text)


_BYTES = Whole(1, MAX_BYTES)


def _ten_thousandths(text: str) -> int:
    """A decimal number from 0 to 1 in units of 1/10,000; raises ValueError if it is larger."""
    whole, _, decimals = text.partition(".")
    share = int(whole or "0") * WHOLE_SHARE + int(decimals.ljust(4, "0"))
    if share > WHOLE_SHARE:
        raise ValueError
    return share
