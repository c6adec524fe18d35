"""Pydantic models of all answers, and functions that make them from the dataclasses of the service."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from service.imaging.formats import FORMATS, TABLE, Format, PillowName
from service.imaging.plan import ExportWarning
from service.imaging.provenance import Mark
from service.orders import Failed, Variation, number_of
from service.publishing import ExportSet
from service.schemas.remedies import REMEDIES
from service.schemas.warnings import WARNINGS

Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
ErrorCode = Annotated[str, Field(json_schema_extra={"enum": [*sorted(REMEDIES)]})]
Sha256 = Annotated[str, Field(json_schema_extra={"pattern": "^[0-9a-f]{64}$"})]


class Answer(BaseModel):
    """A model with exactly its members, also made from a dataclass that has them."""

    model_config = ConfigDict(
        extra="forbid",
        from_attributes=True,
        use_attribute_docstrings=True,
        # A member with a default is sent, too; the models that leave some out say so.
        json_schema_serialization_defaults_required=True,
    )


class _MemberOfEachFormat:
    """Describes a mapping of formats as an object with a member for each, since no object of an answer is open."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        export = handler(core)["additionalProperties"]
        members = {name: {"anyOf": [export, {"type": "null"}]} for name in FORMATS}
        return {"type": "object", "properties": members, "additionalProperties": False}


class ExportAnswer(Answer):
    """One finished file."""

    format: PillowName
    url: str | None
    """Absolute if `PUBLIC_URL` is set, otherwise relative; null when the file is gone."""
    file_path: str
    """The key of the file."""
    size: int
    """In bytes."""
    exported_at: Timestamp
    width: int
    height: int
    content_type: str
    sha256: Sha256
    quality: int | None
    """The quality that was used; null for PNG and lossless WebP."""
    colors: int | None
    """The size of the palette that a byte budget chose; null without one."""
    frames: int
    """1 for a still."""


Exports = Annotated[dict[Format, ExportAnswer], _MemberOfEachFormat()]


class WarningAnswer(Answer):
    """A problem that did not stop the export."""

    code: Annotated[str, Field(json_schema_extra={"enum": list(WARNINGS)})]
    format: Format | None
    """Null when it concerns all formats."""
    detail: str


class PictureAnswer(Answer):
    """What the metadata of every picture has."""

    width: int
    height: int
    mime_type: str
    sha256: Sha256
    normalized_to: tuple[int, int]
    """Width and height of the exports."""
    composited: bool
    """Whether a base was blended under it."""
    c2pa: bool | None
    """Whether it carries a C2PA manifest, which is not validated; null for a picture of a release that did not look."""
    digital_source_type: Mark | None
    """The mark of its exports."""


class UploadAnswer(PictureAnswer):
    """The metadata of a picture that was sent to `/api/exports`."""

    frames: int
    """1 for a still."""


class MetadataAnswer(PictureAnswer):
    """The metadata of a picture that Gemini drew."""

    prompt: str
    """What Gemini was sent: the script and instructions."""
    model: str
    aspect_ratio: str
    """As it was asked for."""
    usage: dict[str, Any] | None
    """Gemini's `usageMetadata`; null if it is larger than 16 KiB."""
    cost_usd: float | None
    """What the call cost, by the tokens that Gemini counted; null for a model whose price is unknown."""


class VariationAnswer(Answer):
    """One generated picture and its exports."""

    id: str
    storage_path: str
    """The key of the picture as Gemini sent it."""
    metadata: MetadataAnswer
    exports: Exports
    """By format: those that were asked for and could be made."""
    warnings: list[WarningAnswer]


class ErrorAnswer(Answer):
    """Why one variation failed."""

    id: str
    code: str
    status: int
    detail: str
    retryable: bool
    """Whether the same request may succeed later; only if nothing was billed."""
    billed: bool | None
    """Null when that is unknown."""
    storage_path: str | None
    """The key of what Gemini sent, if that was kept."""


class ThumbnailsAnswer(Answer):
    request_id: str
    variations: list[VariationAnswer]
    errors: list[ErrorAnswer]
    """The variations that failed."""


class ExportsAnswer(Answer):
    request_id: str
    metadata: UploadAnswer
    exports: Exports
    """By format: those that were asked for and could be made."""
    warnings: list[WarningAnswer]


class Problem(Answer):
    """Problem details (RFC 9457) with members of our own."""

    type: str
    """A link to the paragraph about its code."""
    title: str
    status: int
    detail: str
    code: ErrorCode
    request_id: str
    retryable: bool
    """Whether the same request may succeed later; only if nothing was billed."""
    billed: bool | None
    """Whether a call to Gemini was paid for; null when that is unknown."""


class VariationsProblem(Problem):
    """The problem of a request of which no variation succeeded."""

    errors: list[ErrorAnswer]
    """The error of each variation."""


class HealthAnswer(Answer):
    status: Literal["ok"]


class Checks(Answer):
    """The state of each part: `ok`, or what is wrong with it."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    storage: str
    ledger: str
    descriptors: str
    workers: str
    scheduler: str
    admission: str
    emulator: str | None = None
    """Absent when Gemini itself is called."""
    keys: str | None = None
    """Absent without API_KEYS_FILE. While the file cannot be used, the previous keys stay valid."""


class ReadyAnswer(Answer):
    status: Literal["ready"]
    checks: Checks
    emulator: bool


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
