"""The fields of an `application/x-www-form-urlencoded` body, by the URL Standard but for malformed escapes."""

import re

from service.errors import MalformedBody, NotUtf8
from service.schemas.collecting import MAX_FIELDS, Collected
from service.schemas.fields import Fields

_BROKEN_ESCAPE = re.compile(rb"%(?![0-9a-fA-F]{2})")


def fields_of_urlencoded(body: bytes, collected: Collected) -> Fields:
    """Raises MalformedBody, NotUtf8, UnknownField, DuplicateField, and InvalidField for a file."""
    if body.lstrip().startswith(b"{"):
        # `curl -d` names this type unless it is told another.
        raise MalformedBody("the body looks like JSON, which is sent with Content-Type: application/json")
    if _BROKEN_ESCAPE.search(body):
        raise MalformedBody("a % is not followed by two hexadecimal digits; a percent sign itself is sent as %25")
    if body.count(b"&") > MAX_FIELDS:
        raise MalformedBody(f"the body has more than {MAX_FIELDS} fields")
    for pair in filter(None, body.split(b"&")):
        name, _, value = pair.partition(b"=")
        _add(collected, _decoded(name, "a field's name"), value)
    return collected.fields()


def _add(collected: Collected, name: str, value: bytes) -> None:
    name = collected.begin(name)
    if value:
        collected.refuse_file(name)
    collected.check_length(name, len(value) - 2 * value.count(b"%"))
    collected.add(name, _decoded(value, name))


def _decoded(text: bytes, what: str) -> str:
    r"""Decode `+` and escapes: as `\xHH`, by a codec, since urllib's loop would hold up the event loop."""
    escaped = text.replace(b"+", b" ").replace(b"\\", rb"\\").replace(b"%", rb"\x")
    try:
        return escaped.decode("unicode_escape").encode("latin-1").decode()
    except UnicodeDecodeError:
        raise NotUtf8(f"{what} is not UTF-8") from None
