"""JSON Schemas in a few words, for the page."""

import json
from typing import Any

from service.schemas.openapi.html import Markup, code, joined, link

_SCHEMAS = "#/components/schemas/"


def in_words(schema: dict[str, Any]) -> Markup:
    """The type of a value; a schema of its own is a link to its section."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_SCHEMAS)
        return link(f"#schema-{name}", name)
    if "const" in schema:
        return code(json.dumps(schema["const"]))
    if "enum" in schema:
        return joined((code("null" if each is None else str(each)) for each in schema["enum"]), ", ")
    if "anyOf" in schema:
        return joined((in_words(each) for each in schema["anyOf"]), " or ")
    kind = schema.get("type", "anything")
    if isinstance(kind, list):
        return joined((in_words({**schema, "type": each}) if each != "null" else "null" for each in kind), " or ")
    if kind == "array":
        return _list(schema)
    return joined([schema.get("format", kind), *_bounds(schema)], " ")


def _list(schema: dict[str, Any]) -> Markup:
    if "prefixItems" in schema:
        return joined(["[", joined((in_words(each) for each in schema["prefixItems"]), ", "), "]"])
    return joined(["list of ", in_words(schema["items"])])


def _bounds(schema: dict[str, Any]) -> list[str]:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None and high is None:
        return []
    return [f"{low} to {high}" if high is not None else f"from {low}"]
