"""The models of every answer, as the contract names them."""

from collections.abc import Sequence
from typing import Any, Literal

from aiohttp import hdrs, web
from pydantic import BaseModel

from service.errors import ServiceError
from service.exports import Exported
from service.imaging.formats import TABLE, Format
from service.imaging.plan import StepBack
from service.keys import REQUEST_ID, SETTINGS
from service.orders import Failed, Variation

_EXPOSED = "X-Request-Id, Retry-After, Content-Range, ETag"


class ExportAnswer(BaseModel):
    format: Literal["PNG", "JPEG", "WEBP"]
    url: str
    file_path: str
    size: int
    exported_at: str
    width: int
    height: int
    content_type: str
    sha256: str


class WarningAnswer(BaseModel):
    code: str
    format: Format | None
    detail: str


class PictureAnswer(BaseModel):
    """What `/api/exports` says of the picture it was given."""

    width: int
    height: int
    mime_type: str
    sha256: str
    normalized_to: tuple[int, int]
    composited: bool


class VariationMetadata(PictureAnswer):
    prompt: str
    model: str
    aspect_ratio: str
    usage: dict[str, Any]
    cost_usd: float | None


class VariationAnswer(BaseModel):
    id: str
    storage_path: str
    metadata: VariationMetadata
    exports: dict[Format, ExportAnswer]
    warnings: list[WarningAnswer]


class ErrorAnswer(BaseModel):
    """Why one variation failed, what is known of its price, and where its raw is kept if it came."""

    id: str
    code: str
    status: int
    detail: str
    retryable: bool
    billed: bool | None
    storage_path: str | None


class ThumbnailsAnswer(BaseModel):
    request_id: str
    variations: list[VariationAnswer]
    errors: list[ErrorAnswer]


class ExportsAnswer(BaseModel):
    request_id: str
    metadata: PictureAnswer
    exports: dict[Format, ExportAnswer]
    warnings: list[WarningAnswer]


class Problem(BaseModel):
    """RFC 9457, with our own members."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    retryable: bool
    billed: bool | None
    errors: list[ErrorAnswer] | None = None


def variation_answer(variation: Variation) -> VariationAnswer:
    return VariationAnswer(
        id=variation.id,
        storage_path=variation.storage_path,
        metadata=VariationMetadata(**variation.metadata),
        exports=exports_of(variation.exported),
        warnings=warnings_of(variation.exported.warnings),
    )


def exports_answer(request_id: str, sha256: str, exported: Exported) -> ExportsAnswer:
    picture = exported.picture
    return ExportsAnswer(
        request_id=request_id,
        metadata=PictureAnswer(
            width=picture.width,
            height=picture.height,
            mime_type=TABLE[picture.format].mime,
            sha256=sha256,
            normalized_to=exported.normalized_to,
            composited=exported.composited,
        ),
        exports=exports_of(exported),
        warnings=warnings_of(exported.warnings),
    )


def exports_of(exported: Exported) -> dict[Format, ExportAnswer]:
    return {export.format: ExportAnswer(**export.answer()) for export in exported.exports}


def warnings_of(steps_back: Sequence[StepBack]) -> list[WarningAnswer]:
    return [WarningAnswer(code=step.code, format=step.format, detail=step.detail) for step in steps_back]


def error_answer(failed: Failed) -> ErrorAnswer:
    error = failed.error
    return ErrorAnswer(
        id=failed.id,
        code=error.code,
        status=error.status,
        detail=error.detail,
        retryable=error.worth_retrying,
        billed=error.billed,
        storage_path=error.storage_path,
    )


def common_headers(request: web.Request) -> dict[str, str]:
    """Headers that every answer carries, downloads and errors included."""
    headers = {"X-Request-Id": request[REQUEST_ID], "X-Content-Type-Options": "nosniff"}
    allowed = request.app[SETTINGS].cors_origins
    if allowed:
        # Also without an Origin: a cache must not hand this answer to a page that may read another.
        headers["Vary"] = "Origin"
        origin = request.headers.get(hdrs.ORIGIN, "")
        if origin.lower() in allowed:
            headers |= {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": _EXPOSED}
    return headers


def answer(model: BaseModel) -> web.Response:
    return web.Response(body=model.model_dump_json().encode(), content_type="application/json")


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
        # The whole request would go again, with what was billed of it.
        retryable=error.worth_retrying and not billed,
        billed=billed,
        errors=None if errors is None else list(errors),
    )
    return web.Response(
        status=error.status,
        body=body.model_dump_json(exclude={"errors"} if errors is None else None).encode(),
        content_type="application/problem+json",
        headers=error.headers,
    )


def _billed(errors: Sequence[ErrorAnswer]) -> bool | None:
    """True as soon as any of them was billed; False only when all are known not to be."""
    known = {error.billed for error in errors}
    return True if True in known else None if None in known else False
