"""Holds answers against the description of the API: whatever a test is about, an answer of another form fails it."""

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema_rs

from service.app import TABLE
from service.schemas.openapi.document import describe
from service.settings import Settings


@cache
def document() -> dict[str, Any]:
    """The description with default settings, on which the forms of answers do not depend."""
    return describe(TABLE, Settings(gemini_emulator=True), "0")


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """The paths, those without parameters first."""
    paths = sorted(document()["paths"], key=lambda path: path.count("{"))
    return [(re.compile(re.sub(r"\\\{\w+\\\}", "[^/]*", re.escape(path))), path) for path in paths]


def operation_of(method: str, path: str) -> dict[str, Any] | None:
    """The operation of a request; None for a path or a method that the table of routes lacks."""
    for pattern, template in _patterns():
        if pattern.fullmatch(path):
            operation: dict[str, Any] | None = document()["paths"][template].get(method.lower())
            return operation
    return None


def validator(schema: Mapping[str, Any]) -> Any:
    return jsonschema_rs.validator_for({**schema, "components": document()["components"]}, validate_formats=True)


@cache
def _validator(operation_id: str, status: str, kind: str) -> Any:
    operations = (each for path in document()["paths"].values() for each in path.values())
    operation = next(each for each in operations if each["operationId"] == operation_id)
    return validator(operation["responses"][status]["content"][kind]["schema"])


def assert_described(method: str, path: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Assert that the description has this answer: its status, type and form, and the headers of that status."""
    operation = operation_of(method, path)
    if operation is None:
        return
    where = f"{method} {path} {status}"
    described = operation["responses"].get(str(status))
    assert described, f"{where}: no such status in the description, see service/schemas/openapi: {body[:500]!r}"
    content = described.get("content", {})
    if not content or not body:
        assert not body, where
        return
    kind = headers["Content-Type"].partition(";")[0]
    assert kind in content, f"{where}: no {kind} in the description"
    if kind.endswith("json") and "schema" in content[kind]:
        errors = [
            error.message
            for error in _validator(operation["operationId"], str(status), kind).iter_errors(json.loads(body))
        ]
        assert not errors, f"{where}: {errors}: {body[:500]!r}"
