"""The fields of a JSON body: each value as the text that a form would have in its place."""

from service.budgets import RULE
from service.errors import InvalidField
from service.schemas.collecting import Collected
from service.schemas.fields import Fields, not_allowed
from service.schemas.json_body import Json, JsonObject
from service.schemas.table import FORMATS, MAX_BYTES

_KINDS = {dict: "an object", list: "an array", type(None): "null"}


def fields_of_json(body: JsonObject, collected: Collected) -> Fields:
    """Raises UnknownField, and InvalidField for a value of another type, and for a file. `null` counts as absent."""
    for name, value in body.items():
        name = collected.begin(name)
        if value is not None and value != []:
            collected.refuse_file(name)
            collected.add(name, _text(name, value))
    return collected.fields()


def _text(name: str, value: Json) -> str:
    if isinstance(value, list) and name == FORMATS.name:
        return ",".join(_scalar(name, each) for each in value)
    if isinstance(value, dict) and name == MAX_BYTES.name:
        return ",".join(_budget(name, *each) for each in value.items() if each[1] is not None)
    return _scalar(name, value)


def _budget(name: str, each: str, most: Json) -> str:
    text = _scalar(name, most)
    if {",", ":"} & {*each, *text}:
        raise not_allowed(name, f"{each}: {text}", RULE)
    return f"{each}:{text}"


def _scalar(name: str, value: Json) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    raise InvalidField(f"{name}: {_KINDS[type(value)]} is not allowed here", param=name)
