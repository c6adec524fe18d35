"""Errors as `application/problem+json` (RFC 9457), and those of paths under /v1 in the form of the OpenAI API."""

from collections.abc import Mapping, Sequence
from typing import Final

from aiohttp import web

from service.errors import Busy, Draining, OutOfDescriptors, ServiceError, StorageFull
from service.schemas.answers import ErrorAnswer, Problem, VariationsProblem
from service.schemas.openai_answers import OpenAIError, error_detail, status_of
from service.server.bodies import RETRY_AFTER
from service.server.keys import ORDER_ID, REQUEST_ID, SETTINGS

# The error code of a response, for the log.
CODE: Final = web.ResponseKey("code", str)
# A full disk is freed by a sweep or an operator, which takes longer than what else passes.
_STORAGE_FULL = {"Retry-After": "60"}


def refusal(error: ServiceError, request: web.Request, errors: Sequence[ErrorAnswer] | None = None) -> web.Response:
    """The response for an error, in the form of the API that the path belongs to.

    `errors` are those of the single variations when none succeeded.
    """
    if request.path == "/v1" or request.path.startswith("/v1/"):
        return openai_error(error, errors)
    # The order's id where there is one, also of an order that is answered again.
    own_id = request.get(ORDER_ID, request[REQUEST_ID])
    return problem(error, own_id, errors, request.app[SETTINGS].public_url)


def problem(
    error: ServiceError,
    request_id: str,
    errors: Sequence[ErrorAnswer] | None = None,
    public_url: str | None = None,
) -> web.Response:
    """The response for an error as problem+json.

    Its `type` is a link to the code's paragraph in the API page, absolute if there is a PUBLIC_URL.
    """
    body = Problem(
        type=f"{public_url or ''}/docs#problem-{error.code}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        code=error.code,
        request_id=request_id,
        retryable=_retryable(error, errors),
        billed=_billed(error, errors),
    )
    if errors is not None:
        body = VariationsProblem(**dict(body), errors=list(errors))
    return _coded(
        error,
        web.Response(
            status=error.status,
            body=body.model_dump_json().encode(),
            content_type="application/problem+json",
            headers={**_retry_after(error), **error.headers},
        ),
    )


def openai_error(error: ServiceError, errors: Sequence[ErrorAnswer] | None = None) -> web.Response:
    """The response for an error in OpenAI's form; the request id is in its header only, as there."""
    retry = "true" if _retryable(error, errors) else "false"
    return _coded(
        error,
        web.Response(
            status=status_of(error),
            body=OpenAIError(error=error_detail(error)).model_dump_json().encode(),
            content_type="application/json",
            headers={**_retry_after(error), **error.headers, "X-Should-Retry": retry},
        ),
    )


def _coded(error: ServiceError, response: web.Response) -> web.Response:
    response[CODE] = error.code
    return response


def _retryable(error: ServiceError, errors: Sequence[ErrorAnswer] | None) -> bool:
    """A retry repeats the whole request, so no variation may have been billed."""
    return error.worth_retrying and _billed(error, errors) is False


def _retry_after(error: ServiceError) -> Mapping[str, str]:
    if error.status == StorageFull.status:
        return _STORAGE_FULL
    return RETRY_AFTER if isinstance(error, Busy | Draining | OutOfDescriptors) else {}


def _billed(error: ServiceError, errors: Sequence[ErrorAnswer] | None) -> bool | None:
    """True as soon as any of them was billed; False only when all are known not to be."""
    known = {each.billed for each in errors or (error,)}
    return True if True in known else None if None in known else False
