"""Request headers that carry data, read strictly."""

import hashlib
import re
from collections.abc import Mapping, Sequence

from service.bases import Source
from service.errors import InvalidIdempotencyKey, MalformedRequest

_KEY = re.compile(r"[!-~]{1,255}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_POSITIVE = re.compile(r"0*[1-9][0-9]*", re.ASCII)


def idempotency_key(values: Sequence[str]) -> str | None:
    """The Idempotency-Key, without the quotes of a structured-field string (RFC 8941); raises InvalidIdempotencyKey."""
    if not values:
        return None
    if len(values) > 1:
        raise InvalidIdempotencyKey("Idempotency-Key came twice")
    key = values[0].strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not _KEY.fullmatch(key):
        raise InvalidIdempotencyKey("Idempotency-Key must be 1 to 255 visible ASCII characters")
    return key


def is_retry(values: Sequence[str]) -> bool:
    """Whether X-Stainless-Retry-Count, which the official OpenAI clients send, says that this is an automatic retry."""
    return any(_POSITIVE.fullmatch(value.strip()) for value in values)


def prefers_async(values: Sequence[str]) -> bool:
    """Whether Prefer (RFC 7240) asks for an answer before the work is done."""
    tokens = (token.partition(";")[0].strip().lower() for value in values for token in value.split(","))
    return "respond-async" in tokens


def last_event_id(headers: Sequence[str], parameter: str | None) -> int:
    """The number of the last event that a client saw, 0 for none; raises MalformedRequest."""
    given = {text.strip() for text in (*headers, *([parameter] if parameter is not None else []))}
    if len(given) > 1:
        raise MalformedRequest("Last-Event-ID and last_event_id differ")
    text = next(iter(given), "0")
    if not _NUMBER.fullmatch(text):
        raise MalformedRequest("Last-Event-ID must be a whole number, 0 or more")
    return int(text)


def fingerprint(route: str, texts: Mapping[str, str], files: Mapping[str, Source]) -> str:
    """A digest of a request's body: its non-empty fields with their values as sent, and the bytes of its files.

    The order of the fields, the boundary, file names and declared types do not count.
    """
    digest = hashlib.sha256()
    parts = [(name, value) for name, value in texts.items() if value]
    parts += [(name, f"{file.sha256}:{file.size}") for name, file in files.items()]
    for text in (route, *(text for part in sorted(parts) for text in part)):
        data = text.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
