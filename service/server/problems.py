"""Errors as `application/problem+json` (RFC 9457), the form of every error of every route."""

from collections.abc import Mapping, Sequence

from aiohttp import web

from service.errors import Busy, Draining, OutOfDescriptors, ServiceError, StorageFull
from service.schemas.answers import ErrorAnswer, Problem, VariationsProblem

# Seconds until a retry is worthwhile. A full disk is freed by a sweep or an operator, which takes longer.
RETRY_AFTER = {"Retry-After": "5"}
_STORAGE_FULL = {"Retry-After": "60"}


def problem(error: ServiceError, request_id: str, errors: Sequence[ErrorAnswer] | None = None) -> web.Response:
    """The response for an error; `errors` are those of the single variations when none succeeded."""
    billed = _billed(errors) if errors else error.billed
    body = Problem(
        type=f"urn:image-export:problem:{error.code}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        code=error.code,
        request_id=request_id,
        # A retry repeats the whole request, so no variation may have been billed.
        retryable=error.worth_retrying and billed is False,
        billed=billed,
    )
    if errors is not None:
        body = VariationsProblem(**dict(body), errors=list(errors))
    return web.Response(
        status=error.status,
        body=body.model_dump_json().encode(),
        content_type="application/problem+json",
        headers={**_retry_after(error), **error.headers},
    )


def _retry_after(error: ServiceError) -> Mapping[str, str]:
    if error.status == StorageFull.status:
        return _STORAGE_FULL
    return RETRY_AFTER if isinstance(error, Busy | Draining | OutOfDescriptors) else {}


def _billed(errors: Sequence[ErrorAnswer]) -> bool | None:
    """True as soon as any of them was billed; False only when all are known not to be."""
    known = {error.billed for error in errors}
    return True if True in known else None if None in known else False
