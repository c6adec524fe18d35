"""`Fields`: the text fields of a form, each read strictly; every error says what is allowed."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from service.budgets import MAX_BYTES, RULE, budget_of_each
from service.errors import InvalidField
from service.imaging.formats import DEFAULT_FORMATS, FORMATS, Format, formats_of, listed
from service.imaging.plan import WHOLE_SHARE, Budgets, Focus
from service.values import parse_colour

T = TypeVar("T")

_BOOLEANS = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}
_SHARE = re.compile(r"(?!\.$)[0-9]?\.?[0-9]{0,4}", re.ASCII)
_COORDINATE = re.compile(r"[01](?:\.[0-9]{1,4})?", re.ASCII)
# Whole numbers may have leading zeros, but not without end.
_MAX_DIGITS = 10


@dataclass(frozen=True, slots=True)
class Fields:
    """The text of each field by its name. An empty value counts as absent; every method raises InvalidField."""

    texts: Mapping[str, str]

    def text(self, name: str) -> str | None:
        return self.texts.get(name) or None

    def integer(self, name: str, low: int, high: int) -> int | None:
        text = self.text(name)
        if text is None:
            return None
        number = _whole_number(text, low, high)
        if number is None:
            raise not_allowed(name, text, f"a whole number from {low} to {high}")
        return number

    def boolean(self, name: str, default: bool) -> bool:
        value = self.optional_boolean(name)
        return default if value is None else value

    def optional_boolean(self, name: str) -> bool | None:
        text = self.text(name)
        if text is None:
            return None
        if text.lower() not in _BOOLEANS:
            raise not_allowed(name, text, "true, false, 1, 0, on or off")
        return _BOOLEANS[text.lower()]

    def choice(self, name: str, choices: Mapping[str, T], default: T) -> T:
        text = self.text(name)
        if text is None:
            return default
        if text not in choices:
            raise not_allowed(name, text, ", ".join(choices))
        return choices[text]

    def share(self, name: str, default: int) -> int:
        """A number from 0 to 1 with at most 4 decimals, in units of 1/10,000."""
        text = self.text(name)
        if text is None:
            return default
        share = _ten_thousandths(text) if _SHARE.fullmatch(text) else None
        if share is None:
            raise not_allowed(name, text, "a number from 0 to 1 with at most 4 decimals")
        return share

    def focus(self, name: str) -> Focus:
        text = self.text(name)
        if text is None:
            return None
        if text == "auto":
            return "auto"
        point = [_ten_thousandths(part) for part in text.split(",") if _COORDINATE.fullmatch(part)]
        match point if text.count(",") == 1 else ():
            case [int(x), int(y)]:
                return x, y
        raise not_allowed(name, text, "auto, or x,y such as 0.5,0.25, each from 0 to 1 with at most 4 decimals")

    def formats(self, name: str) -> Sequence[Format]:
        """The requested formats without duplicates, in the order of the table."""
        text = self.text(name)
        if text is None:
            return DEFAULT_FORMATS
        try:
            return formats_of(text.split(","))
        except ValueError:
            raise not_allowed(name, text, f"a comma-separated list of {listed(FORMATS, 'and')}") from None

    def budgets(self, name: str, formats: Collection[Format]) -> Budgets | None:
        """The bytes of a file of any format, or of some of `formats`."""
        text = self.text(name)
        if text is None:
            return None
        try:
            if ":" not in text:
                return Budgets(any=_bytes(text))
            parts = [part.partition(":") for part in text.split(",")]
            return Budgets(each=budget_of_each([(kind, _bytes(most.strip())) for kind, _, most in parts], formats))
        except ValueError as error:
            raise not_allowed(name, text, str(error)) from None

    def colour(self, name: str, default: tuple[int, int, int]) -> tuple[int, int, int]:
        text = self.text(name)
        try:
            return parse_colour(text) if text else default
        except ValueError:
            raise not_allowed(name, text or "", "a colour such as #ffffff") from None


def _whole_number(text: str, low: int, high: int) -> int | None:
    """ASCII digits within the bounds, as a number; None for any other text."""
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        return None
    return number if low <= (number := int(text)) <= high else None


def _bytes(text: str) -> int:
    number = _whole_number(text, 1, MAX_BYTES)
    if number is None:
        raise ValueError(RULE)
    return number


def _ten_thousandths(text: str) -> int | None:
    """A decimal number from 0 to 1 in units of 1/10,000; None if it is larger."""
    whole, _, decimals = text.partition(".")
    share = int(whole or "0") * WHOLE_SHARE + int(decimals.ljust(4, "0"))
    return share if share <= WHOLE_SHARE else None


def not_allowed(name: str, text: str, allowed: str) -> InvalidField:
    shown = text if len(text) <= 60 else f"{text[:60]}…"
    return InvalidField(f"{name}={shown!r} is not allowed: {allowed}")
