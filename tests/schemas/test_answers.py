"""What the models of answers promise to clients that are generated from them."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic.json_schema import models_json_schema

from service.schemas import answers, openai_answers, status
from service.schemas.answers import Answer

MODELS = sorted(
    {each for module in (answers, openai_answers, status) for each in vars(module).values() if isinstance(each, type)}
    & {*Answer.__subclasses__(), *(below for each in Answer.__subclasses__() for below in each.__subclasses__())},
    key=lambda model: model.__name__,
)
# Gemini's own members, whatever they are.
OPEN = {"usage"}


def objects(schema: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in a schema, with the name of its member."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield name, schema
        for key, below in schema.items():
            yield from objects(below, name if key in ("anyOf", "items") else key)
    elif isinstance(schema, list):
        for below in schema:
            yield from objects(below, name)


def is_nullable(schema: dict[str, Any]) -> bool:
    return {"type": "null"} in schema.get("anyOf", [])


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_an_answer_is_closed_and_each_member_is_required_or_nullable(model: type[Answer]) -> None:
    _, schema = models_json_schema([(model, "serialization")])
    found = [each for each in objects(schema["$defs"]) if each[0] not in OPEN]
    assert found
    for name, each in found:
        assert each["additionalProperties"] is False, name
        for member, below in each["properties"].items():
            assert member in each.get("required", ()) or is_nullable(below), (name, member)
