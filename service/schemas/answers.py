"""Pydantic models of all answers, and functions that make them from the dataclasses of the service."""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from service.imaging.formats import TABLE, Format, PillowName
from service.imaging.plan import ExportWarning
from service.imaging.provenance import Mark
from service.orders import Failed, Variation, number_of
from service.publishing import ExportSet


class _FromDataclass(BaseModel):
    """A model that `model_validate` makes from a dataclass with the same members."""

    model_config = ConfigDict(from_attributes=True)


class ExportAnswer(_FromDataclass):
    format: PillowName
    url: str | None
    file_path: str
    size: int
    exported_at: str
    width: int
    height: int
    content_type: str
    sha256: str
    quality: int | None
    colors: int | None
    frames: int


class WarningAnswer(_FromDataclass):
    code: str
    format: Format | None
    detail: str


class PictureAnswer(_FromDataclass):
    """What the metadata of every picture has."""

    width: int
    height: int
    mime_type: str
    sha256: str
    normalized_to: tuple[int, int]
    composited: bool
    c2pa: bool | None
    digital_source_type: Mark | None


class UploadAnswer(PictureAnswer):
    """The metadata of a picture that was sent to `/api/exports`; `frames` is 1 for a still."""

    frames: int


class MetadataAnswer(PictureAnswer):
    """The metadata of a picture that Gemini drew."""

    prompt: str
    model: str
    aspect_ratio: str
    usage: dict[str, Any] | None
    cost_usd: float | None


class VariationAnswer(BaseModel):
    id: str
    storage_path: str
    metadata: MetadataAnswer
    exports: dict[Format, ExportAnswer]
    warnings: list[WarningAnswer]


class ErrorAnswer(BaseModel):
    """Why one variation failed, whether it was billed, and the key of its raw if that was kept."""

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
    metadata: UploadAnswer
    exports: dict[Format, ExportAnswer]
    warnings: list[WarningAnswer]


class Problem(BaseModel):
    """Problem details (RFC 9457) with members of our own."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    retryable: bool
    billed: bool | None
    errors: list[ErrorAnswer] | None = None


def thumbnails_answer(request_id: str, ended: Iterable[Variation | Failed]) -> ThumbnailsAnswer:
    """The answer to an order, by the last event of each variation."""
    done, failed = [], []
    for event in sorted(ended, key=number_of):
        if isinstance(event, Variation):
            done.append(variation_answer(event))
        else:
            failed.append(error_answer(event))
    return ThumbnailsAnswer(request_id=request_id, variations=done, errors=failed)


def variation_answer(variation: Variation) -> VariationAnswer:
    return VariationAnswer(
        id=variation.id,
        storage_path=variation.storage_path,
        metadata=MetadataAnswer.model_validate(variation.metadata),
        exports=exports_of(variation.exported),
        warnings=warnings_of(variation.exported.warnings),
    )


def exports_answer(request_id: str, sha256: str, exported: ExportSet) -> ExportsAnswer:
    picture = exported.picture
    return ExportsAnswer(
        request_id=request_id,
        metadata=UploadAnswer(
            width=picture.width,
            height=picture.height,
            mime_type=TABLE[picture.format].mime,
            sha256=sha256,
            normalized_to=exported.normalized_to,
            composited=exported.composited,
            c2pa=picture.c2pa,
            digital_source_type=exported.mark,
            frames=picture.frames,
        ),
        exports=exports_of(exported),
        warnings=warnings_of(exported.warnings),
    )


def exports_of(exported: ExportSet) -> dict[Format, ExportAnswer]:
    return {name: ExportAnswer.model_validate(export) for name, export in exported.exports.items()}


def warnings_of(warnings: Sequence[ExportWarning]) -> list[WarningAnswer]:
    return [WarningAnswer.model_validate(warning) for warning in warnings]


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
