"""The answers for errors, as problem+json or, under /v1, in the form of the OpenAI API."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from service import errors
from service.errors import ServiceError
from service.schemas.media_types import JSON
from service.schemas.openai_answers import OpenAIError, error_detail, status_of
from service.schemas.openapi.operation import Endpoint, Operation
from service.schemas.openapi.parameters import REQUEST_ID, common_headers
from service.schemas.openapi.problems import errors_of

# What the status of an error may be, if not only that of its class: it is that of its reason.
_STATUSES: Mapping[type[ServiceError], tuple[int, ...]] = {errors.NoExport: (422, 502, 503, 507)}

# The errors that say when a retry is worthwhile, if that is known.
_RETRY_AFTER = (
    errors.Busy, errors.Draining, errors.StorageFull, errors.BudgetExhausted, errors.StorageUnavailable,
    errors.QuotaExhausted, errors.GeminiUnavailable, errors.BodyTimeout, errors.RateLimited,
)  # fmt: skip

Schema = dict[str, Any]


class Form(Protocol):
    """A form of errors: its media type, the headers that all have, and how it has a status, a code and a body."""

    @property
    def media_type(self) -> str: ...

    @property
    def headers(self) -> tuple[str, ...]: ...

    def status(self, error: ServiceError) -> int: ...

    def code(self, error: ServiceError) -> str: ...

    def schema(self, status: int, own: Collection[str], of_variations: Collection[str]) -> Schema:
        """The schema with the codes of a request, and of one of which no variation succeeded."""

    def example(self, error: ServiceError, *, of_variation: bool) -> Schema: ...


class ProblemForm:
    media_type = "application/problem+json"
    headers = ()

    def status(self, error: ServiceError) -> int:
        return error.status

    def code(self, error: ServiceError) -> str:
        return error.code

    def schema(self, status: int, own: Collection[str], of_variations: Collection[str]) -> Schema:
        models = (("Problem", own), ("VariationsProblem", of_variations))
        schemas = [
            _refined(model, {"status": {"const": status}, "code": {"enum": sorted(codes)}})
            for model, codes in models
            if codes
        ]
        return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}

    def example(self, error: ServiceError, *, of_variation: bool) -> Schema:
        members = {
            "code": error.code,
            "status": error.status,
            "detail": error.detail,
            "retryable": error.worth_retrying,
            "billed": error.billed,
        }
        problem = {"type": f"/docs#problem-{error.code}", "title": error.title, **members, "request_id": REQUEST_ID}
        return {**problem, "errors": [{"id": "var-1", **members, "storage_path": None}]} if of_variation else problem


class OpenAIForm:
    media_type = JSON
    headers = ("X-Should-Retry",)

    def status(self, error: ServiceError) -> int:
        return status_of(error)

    def code(self, error: ServiceError) -> str:
        return error_detail(error).code

    def schema(self, status: int, own: Collection[str], of_variations: Collection[str]) -> Schema:
        codes = {"enum": sorted({*own, *of_variations})}
        return _refined(OpenAIError.__name__, {"error": {"properties": {"code": codes}}})

    def example(self, error: ServiceError, *, of_variation: bool) -> Schema:
        return OpenAIError(error=error_detail(error)).model_dump()


def _refined(model: str, members: Schema) -> Schema:
    return {"allOf": [{"$ref": f"#/components/schemas/{model}"}, {"properties": members}]}


def _form_of(endpoint: Endpoint) -> Form:
    return OpenAIForm() if endpoint.path.startswith("/v1/") else ProblemForm()


def error_answers(endpoint: Endpoint, operation: Operation) -> Schema:
    """The answers for errors, by status."""
    form = _form_of(endpoint)
    own = _by_status(errors_of(endpoint, operation), form)
    of_variations = _by_status(operation.variation_errors, form)
    return {
        str(status): _answer(endpoint, form, status, own.get(status, {}), of_variations.get(status, {}))
        for status in sorted({*own, *of_variations})
    }


def _by_status(kinds: Iterable[type[ServiceError]], form: Form) -> dict[int, dict[str, ServiceError]]:
    """The errors by the statuses that they are answered with, then by their codes."""
    found: dict[int, dict[str, ServiceError]] = {}
    for kind in kinds:
        for status in _STATUSES.get(kind, (kind.status,)):
            error = kind(kind.title, status=status)
            found.setdefault(form.status(error), {})[form.code(error)] = error
    return found


def _answer(
    endpoint: Endpoint,
    form: Form,
    status: int,
    own: Mapping[str, ServiceError],
    of_variations: Mapping[str, ServiceError],
) -> Schema:
    found = {**of_variations, **own}
    examples = [_example_name(form, error) for error in own.values()]
    examples += [_example_name(form, error, of_variation=True) for error in of_variations.values()]
    headers = _headers(endpoint, form, found.values())
    return {
        "description": "\n".join(f"- `{code}`: {error.title}" for code, error in found.items()),
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
        "content": {
            form.media_type: {
                "schema": form.schema(status, own, of_variations),
                "examples": {name: {"$ref": f"#/components/examples/{name}"} for name in examples},
            }
        },
    }


def _headers(endpoint: Endpoint, form: Form, found: Collection[ServiceError]) -> Iterator[str]:
    yield from common_headers(endpoint)
    yield from form.headers
    if any(isinstance(error, _RETRY_AFTER) for error in found):
        yield "Retry-After"
    if any(isinstance(error, errors.Unauthorized) for error in found):
        yield "WWW-Authenticate"
    if any(isinstance(error, errors.RangeNotSatisfiable) for error in found):
        yield "Content-Range"


def error_examples(operations: Sequence[tuple[Endpoint, Operation]]) -> Schema:
    """An example of each error, which cost nothing, by the names that the answers refer to."""
    examples: Schema = {}
    for endpoint, operation in operations:
        form = _form_of(endpoint)
        for kinds, of_variation in ((errors_of(endpoint, operation), False), (operation.variation_errors, True)):
            for found in _by_status(kinds, form).values():
                for error in found.values():
                    name = _example_name(form, error, of_variation=of_variation)
                    examples[name] = {"value": form.example(error, of_variation=of_variation)}
    return examples


def _example_name(form: Form, error: ServiceError, *, of_variation: bool = False) -> str:
    suffix = "-openai" if isinstance(form, OpenAIForm) else "-variations" if of_variation else ""
    return f"{form.code(error)}-{error.status}{suffix}"
