"""The bodies of requests: one schema for each type of body, since only multipart carries files, and JSON has null."""

from collections.abc import Iterable
from typing import Any

from service.imaging.formats import TABLE
from service.schemas.fields import Field
from service.schemas.media_types import JSON, MULTIPART
from service.schemas.openapi.operation import Body
from service.settings import Settings

_PICTURES = ", ".join(row.mime for row in TABLE.values() if row.reader)
_SUFFIXES = {MULTIPART: "Multipart", JSON: "Json"}


def request_body(body: Body) -> dict[str, Any]:
    """The `requestBody` of an operation."""
    content = {
        kind: {"schema": {"$ref": f"#/components/schemas/{_name(body, kind)}"}, "example": body.example}
        for kind in body.types
    }
    if MULTIPART in content and body.files:
        content[MULTIPART]["encoding"] = {file.name: {"contentType": _PICTURES} for file in body.files}
    return {"required": True, "content": content}


def body_schemas(bodies: Iterable[Body], settings: Settings) -> dict[str, Any]:
    return {_name(body, kind): _schema(body, kind, settings) for body in bodies for kind in body.types}


def _name(body: Body, kind: str) -> str:
    return f"{body.name}{_SUFFIXES.get(kind, 'Urlencoded')}"


def _schema(body: Body, kind: str, settings: Settings) -> dict[str, Any]:
    fields = body.fields(settings)
    members = {field.name: _member(field, kind, settings) for field in fields}
    required = [field.name for field in fields if field.required]
    if kind == MULTIPART:
        members |= {file.name: {"type": "string", "format": "binary", "description": file.about} for file in body.files}
        required += [file.name for file in body.files if file.required]
    return {
        "type": "object",
        "properties": members,
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _member(field: Field[Any], kind: str, settings: Settings) -> dict[str, Any]:
    schema, default = dict(field.kind.schema), field.default_by(settings)
    if kind == JSON:
        schema = dict(getattr(field.kind, "json_schema", schema))
        if not field.required:
            schema = _nullable(schema)
    described = {**schema, "description": field.about}
    return described if default is None else {**described, "default": default}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema that also allows null, which counts as absent."""
    if not schema:
        return schema
    if "anyOf" in schema:
        return {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    enum = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": [schema["type"], "null"], **enum}
