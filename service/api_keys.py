"""API keys: the syntax of API_KEYS and of the lines of API_KEYS_FILE, and the caller of each key.

No error shows a key, or any other text of a line.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

from service.callers import Caller, Limits, Rate, principal_of

T = TypeVar("T")

MIN_API_KEY = 16
MAX_KEYS = 10_000
MAX_RATE = 1_000_000
MAX_VARIATIONS = 64
MAX_BUDGET = 1_000_000
NANO = 1_000_000_000

_NAME = re.compile(r"[a-z0-9-]{1,32}", re.ASCII)
_RATE = re.compile(r"([1-9][0-9]{0,6})/(s|min|h)", re.ASCII)
_BUDGET = re.compile(r"[0-9]{1,7}(?:\.[0-9]{1,6})?", re.ASCII)
_COUNT = re.compile(r"[1-9][0-9]?", re.ASCII)
_OPTIONS = frozenset({"rate", "budget", "max_variations"})
_SECONDS = {"s": 1, "min": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is listed: by its digest, with the name and the options of its entry; `location` is for errors."""

    digest: bytes
    name: str | None
    limits: Limits
    location: str

    @property
    def principal(self) -> str:
        """That of the key itself, whatever its name."""
        return self.digest.hex()[:32]


def digest_of(key: bytes) -> bytes:
    """Keys are looked up by their SHA-256: the time of a look-up tells nothing about a key."""
    return hashlib.sha256(key).digest()


def parse_list(entries: Sequence[str]) -> list[ApiKey]:
    """The entries of API_KEYS, `key` or `name:key`; raises ValueError."""
    return [_parse_key(entry, Limits(), f"key {number} of API_KEYS") for number, entry in enumerate(entries, 1)]


def parse_file(text: str) -> list[ApiKey]:
    """The lines of API_KEYS_FILE, `key` or `name:key` and options; raises ValueError, also if there is no key."""
    keys = list(_parse_lines(text))
    if not keys:
        raise ValueError("it has no key")
    return keys


def _parse_lines(text: str) -> Iterator[ApiKey]:
    for number, line in enumerate(text.split("\n"), 1):
        words = list(_without_comment(line.split()))
        if words:
            location = f"line {number}"
            yield _parse_key(words[0], _parse_options(words[1:], location), location)


def _without_comment(words: Iterable[str]) -> Iterator[str]:
    for word in words:
        if word.startswith("#"):
            return
        yield word


def _parse_key(entry: str, limits: Limits, location: str) -> ApiKey:
    before, colon, after = entry.partition(":")
    name, key = (before, after) if colon and _NAME.fullmatch(before) else (None, entry)
    if ":" in key or "," in key or any(map(str.isspace, key)) or not key.isprintable():
        raise ValueError(
            f"{location}: a key has no colon, comma, white space or control character,"
            " and the name before its colon is 1 to 32 of a-z, 0-9 and -"
        )
    if len(key) < MIN_API_KEY:
        raise ValueError(f"{location}: each key must be at least {MIN_API_KEY} characters")
    return ApiKey(digest_of(key.encode()), name, limits, location)


def _parse_options(words: Sequence[str], location: str) -> Limits:
    options: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name in options or name not in _OPTIONS:
            raise ValueError(f"{location}: the options are rate=60/min, budget=5.00 and max_variations=4, each once")
        options[name] = value
    try:
        return Limits(
            rate=_parsed(_parse_rate, options.get("rate")),
            budget=_parsed(_parse_budget, options.get("budget")),
            max_variations=_parsed(_parse_count, options.get("max_variations")),
        )
    except ValueError as error:
        raise ValueError(f"{location}: {error}") from None


def _parsed(parse: Callable[[str], T], text: str | None) -> T | None:
    return None if text is None else parse(text)


def _parse_rate(text: str) -> Rate:
    match = _RATE.fullmatch(text)
    if not match or int(match[1]) > MAX_RATE:
        raise ValueError(f"rate must be such as 60/min: 1 to {MAX_RATE} for each s, min or h")
    return Rate(int(match[1]), _SECONDS[match[2]])


def _parse_budget(text: str) -> int:
    amount = Decimal(text) if _BUDGET.fullmatch(text) else Decimal()
    if not 0 < amount <= MAX_BUDGET:
        raise ValueError(f"budget must be US dollars such as 5.00: more than 0, at most {MAX_BUDGET}, 6 decimals")
    return int(amount * NANO)


def _parse_count(text: str) -> int:
    if not _COUNT.fullmatch(text) or int(text) > MAX_VARIATIONS:
        raise ValueError(f"max_variations must be 1 to {MAX_VARIATIONS}")
    return int(text)


def callers_of(keys: Sequence[ApiKey]) -> Mapping[bytes, Caller]:
    """The caller of each key by its digest; keys of one name are one caller. Raises ValueError.

    The options of a name may stand on any line of it: on several only if they are equal.
    """
    if len(keys) > MAX_KEYS:
        raise ValueError(f"there are more than {MAX_KEYS} keys")
    _check_distinct(keys)
    named: dict[str, list[ApiKey]] = {}
    callers: dict[bytes, Caller] = {}
    for key in keys:
        if key.name is None:
            callers[key.digest] = Caller(key.principal, limits=key.limits)
        else:
            named.setdefault(key.name, []).append(key)
    for name, own in named.items():
        caller = Caller(principal_of(name), tuple(key.principal for key in own), _common_limits(own))
        callers |= {key.digest: caller for key in own}
    return callers


def _check_distinct(keys: Iterable[ApiKey]) -> None:
    locations: dict[bytes, str] = {}
    for key in keys:
        if key.digest in locations:
            raise ValueError(f"{locations[key.digest]} and {key.location} are the same key")
        locations[key.digest] = key.location


def _common_limits(keys: Sequence[ApiKey]) -> Limits:
    location, limits = keys[-1].location, [key.limits for key in keys]
    return Limits(
        rate=_agreed("rate", {each.rate for each in limits}, location),
        budget=_agreed("budget", {each.budget for each in limits}, location),
        max_variations=_agreed("max_variations", {each.max_variations for each in limits}, location),
    )


def _agreed(option: str, values: set[T | None], location: str) -> T | None:
    """The only value that is set, if any is."""
    given = values - {None}
    if len(given) > 1:
        raise ValueError(f"{location}: another line of the same name has another {option}")
    return given.pop() if given else None
