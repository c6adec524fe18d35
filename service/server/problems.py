"""Errors as `application/problem+json` (RFC 9457), the form of every error of every route."""

from collections.abc import Sequence

from aiohttp import web

from service.errors import ServiceError, StorageFull
from service.schemas.answers import ErrorAnswer, Problem

# A full disk is emptied by a sweep or an operator, not within seconds.
_STORAGE_FULL = {"Retry-After": "60"}


def problem(error: ServiceError, request_id: str, errors: Sequence[ErrorAnswer] | None = None) -> web.Response:
    """The one form of every error."""
    billed = _billed(errors) if errors else error.billed
    body = Problem(
        type=f"urn:image-export:problem:{error.code}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        code=error.code,
        request_id=request_id,
        # The whole request would go again, with what was billed, or may have been, of any variation.
        retryable=error.worth_retrying and billed is False,
        billed=billed,
        errors=None if errors is None else list(errors),
    )
    return web.Response(
        status=error.status,
        body=body.model_dump_json(exclude={"errors"} if errors is None else None).encode(),
        content_type="application/problem+json",
        headers=_STORAGE_FULL | error.headers if error.status == StorageFull.status else error.headers,
    )


def _billed(errors: Sequence[ErrorAnswer]) -> bool | None:
    """True as soon as any of them was billed; False only when all are known not to be."""
    known = {error.billed for error in errors}
    return True if True in known else None if None in known else False
