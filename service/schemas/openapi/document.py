"""The whole description as an OpenAPI 3.1 document."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from service.schemas.answers import Problem, VariationsProblem
from service.schemas.media_types import JSON
from service.schemas.openai_answers import CompletedEvent, ErrorEvent, OpenAIError
from service.schemas.openapi.bodies import body_schemas, request_body
from service.schemas.openapi.error_answers import error_answers, error_examples
from service.schemas.openapi.notes import as_commonmark
from service.schemas.openapi.operation import EVENT_STREAM, Endpoint, Header, Operation, Parameter, Success
from service.schemas.openapi.operations import OPERATIONS, TAGS
from service.schemas.openapi.parameters import COMMON, HEADERS, common_headers
from service.schemas.status import EVENTS
from service.settings import Settings

# Those that no answer names by itself: of errors, and of events.
_OTHER_MODELS: tuple[type[BaseModel], ...] = (
    Problem,
    VariationsProblem,
    OpenAIError,
    *EVENTS.values(),
    CompletedEvent,
    ErrorEvent,
)


class _Plain(GenerateJsonSchema):
    """Without a title for each member, which would only repeat its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def describe(endpoints: Iterable[Endpoint], settings: Settings, version: str) -> dict[str, Any]:
    """The document; raises KeyError for a route without an operation."""
    operations = [(endpoint, OPERATIONS[endpoint.name]) for endpoint in endpoints]
    paths: dict[str, dict[str, Any]] = {}
    for endpoint, operation in operations:
        described = paths.setdefault(endpoint.path, {})
        described[endpoint.method.lower()] = _operation(endpoint, operation, settings)
        if endpoint.method == "GET" and endpoint.head:
            described["head"] = _head(described["get"])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Image Export Pipeline",
            "version": version,
            "description": as_commonmark(),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": settings.public_url or "/"}],
        "tags": [{"name": name, "description": about} for name, about in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": _schemas(settings),
            "parameters": {each.name: _parameter(each) for each in COMMON},
            "examples": error_examples(operations),
            "headers": {header.name: _header(header) for header in HEADERS.values()},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "One of `API_KEYS`, where they are set."}
            },
        },
    }


def _operation(endpoint: Endpoint, operation: Operation, settings: Settings) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": endpoint.operation_id,
        "tags": [operation.tag],
        "summary": operation.summary,
    }
    if operation.about:
        described["description"] = operation.about
    described["parameters"] = [
        *(_parameter(each) for each in operation.parameters),
        *({"$ref": f"#/components/parameters/{each.name}"} for each in COMMON),
    ]
    if operation.body:
        described["requestBody"] = request_body(operation.body)
    answers = {str(each.status): _success(each, endpoint) for each in operation.answers}
    described["responses"] = answers | error_answers(endpoint, operation)
    described["security"] = _security(endpoint, settings)
    return described


def _security(endpoint: Endpoint, settings: Settings) -> list[dict[str, list[str]]]:
    """A key where keys are set; without them it is ignored."""
    if endpoint.access != "guarded":
        return []
    return [{"key": []}] if settings.needs_key else [{}, {"key": []}]


def _head(get: Mapping[str, Any]) -> dict[str, Any]:
    """HEAD: the headers of GET without a body."""
    answers = {
        status: {name: value for name, value in answer.items() if name != "content"}
        for status, answer in get["responses"].items()
    }
    return {**get, "operationId": f"{get['operationId']}_head", "responses": answers}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.about,
        "schema": dict(parameter.schema),
    }
    if parameter.place == "path":
        described["required"] = True
    if parameter.example is not None:
        described["example"] = parameter.example
    return described


def _success(answer: Success, endpoint: Endpoint) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": answer.about,
        "headers": {
            name: {"$ref": f"#/components/headers/{name}"}
            for name in (*common_headers(endpoint), *(header.name for header in answer.headers))
        },
    }
    content: dict[str, Any] = {}
    if answer.model:
        content[JSON] = {"schema": {"$ref": f"#/components/schemas/{answer.model.__name__}"}}
    for kind in answer.types:
        content[kind] = {"schema": {"type": "string"}} if kind.startswith("text/") else {}
    if answer.events:
        content[EVENT_STREAM] = {"schema": {"oneOf": [_event(*each) for each in answer.events.items()]}}
    for kind, example in answer.examples.items():
        content[kind]["example"] = example
    return {**described, "content": content} if content else described


def _event(name: str, model: type[BaseModel]) -> dict[str, Any]:
    """One event of a stream, which clients generated from a schema of OpenAPI 3.1 take for the schema of the stream."""
    data = {
        "type": "string",
        "contentMediaType": JSON,
        "contentSchema": {"$ref": f"#/components/schemas/{model.__name__}"},
    }
    members = {"id": {"type": "string"}, "event": {"const": name}, "data": data}
    return {"type": "object", "properties": members, "required": ["event", "data"], "additionalProperties": False}


def _header(header: Header) -> dict[str, Any]:
    return {"description": header.about, "schema": dict(header.schema)}


def _schemas(settings: Settings) -> dict[str, Any]:
    answers = [each.model for operation in OPERATIONS.values() for each in operation.answers if each.model]
    models: dict[type[BaseModel], None] = dict.fromkeys([*answers, *_OTHER_MODELS])
    _, schema = models_json_schema(
        [(model, "serialization") for model in models],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Plain,
    )
    bodies = [operation.body for operation in OPERATIONS.values() if operation.body]
    return {**schema["$defs"], **body_schemas(bodies, settings)}
