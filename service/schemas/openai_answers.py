"""Pydantic models of the answers of the OpenAI API, and functions that make them: pictures, events, models, errors."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, time
from typing import Literal

from pydantic import BaseModel

from service.errors import Blocked, ImageError, ServiceError, UnknownField
from service.gemini.costs import Tokens, tokens
from service.gemini.models import MODELS
from service.imaging.formats import Format
from service.schemas.answers import Answer, ExportAnswer, VariationAnswer

CompletedKind = Literal["image_generation.completed", "image_edit.completed"]
Quality = Literal["medium", "high", "max"]
_QUALITIES: Mapping[str, Quality] = {"1K": "medium", "2K": "high", "4K": "max"}
# A status that OpenAI's clients have no error for is answered as 400, which they all have.
_STATUSES = {413: 400, 415: 400, 422: 400}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
CODES: Mapping[type[ServiceError], str] = {UnknownField: "unknown_parameter", Blocked: "moderation_blocked"}


class TokenDetails(Answer):
    image_tokens: int
    text_tokens: int


class TokenUsage(Answer):
    """Sums over the pictures; thoughts are text output."""

    input_tokens: int
    input_tokens_details: TokenDetails
    output_tokens: int
    output_tokens_details: TokenDetails
    total_tokens: int


class Base64Image(Answer):
    b64_json: str


class LinkedImage(Answer):
    url: str


class _Pictures(Answer):
    background: Literal["opaque"] = "opaque"
    output_format: Format
    quality: Quality
    size: str
    usage: TokenUsage | None


class ImagesAnswer(_Pictures):
    created: int
    data: list[Base64Image | LinkedImage]


class CompletedEvent(_Pictures):
    type: CompletedKind
    created_at: int
    b64_json: str


class OpenAIErrorDetail(Answer):
    message: str
    type: str
    param: str | None
    code: str


class OpenAIError(Answer):
    error: OpenAIErrorDetail


class ErrorEvent(OpenAIError):
    type: Literal["error"] = "error"


class ModelAnswer(Answer):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["google"] = "google"


class ModelList(Answer):
    object: Literal["list"] = "list"
    data: list[ModelAnswer]


# Stands for the base64 of a file until the answer is sent; no other text of it can hold this.
FILE_PLACEHOLDER = "\0"
_PLACEHOLDER_IN_JSON = "\\u0000"


def images_answer(
    variations: Sequence[VariationAnswer],
    picture_format: Format,
    image_size: str,
    created: int,
    links: Sequence[str] | None,
) -> ImagesAnswer:
    """The answer to a request that was opened at `created` (microseconds): with links or, if None, placeholders."""
    placeholders = [Base64Image(b64_json=FILE_PLACEHOLDER)] * len(variations)
    return ImagesAnswer(
        created=created // 1_000_000,
        data=placeholders if links is None else [LinkedImage(url=link) for link in links],
        output_format=picture_format,
        quality=_QUALITIES[image_size],
        size=_size(variations[0].exports[picture_format]),
        usage=usage_of(variations),
    )


def completed_event(
    kind: CompletedKind, variation: VariationAnswer, picture_format: Format, image_size: str, created: int
) -> CompletedEvent:
    """The event of one picture, with a placeholder for its file; `created`, in microseconds, is of its request."""
    return CompletedEvent(
        type=kind,
        created_at=created // 1_000_000,
        b64_json=FILE_PLACEHOLDER,
        output_format=picture_format,
        quality=_QUALITIES[image_size],
        size=_size(variation.exports[picture_format]),
        usage=usage_of([variation]),
    )


def error_event(error: ServiceError) -> ErrorEvent:
    return ErrorEvent(error=error_detail(error))


def split_at_placeholders(body: BaseModel) -> list[bytes]:
    """The model as JSON, cut at its placeholders: one text more than there are files."""
    return [text.encode() for text in body.model_dump_json().split(_PLACEHOLDER_IN_JSON)]


def _size(export: ExportAnswer) -> str:
    return f"{export.width}x{export.height}"


def usage_of(variations: Iterable[VariationAnswer]) -> TokenUsage | None:
    """The tokens of these pictures; None if Gemini told none."""
    told = [found for each in variations if (found := tokens(each.metadata.usage))]
    if not told:
        return None
    total = sum(told, Tokens())
    prompt, output = total.prompt_image + total.prompt_text, total.image + total.text
    return TokenUsage(
        input_tokens=prompt,
        input_tokens_details=TokenDetails(image_tokens=total.prompt_image, text_tokens=total.prompt_text),
        output_tokens=output,
        output_tokens_details=TokenDetails(image_tokens=total.image, text_tokens=total.text),
        total_tokens=prompt + output,
    )


def status_of(error: ServiceError) -> int:
    """The HTTP status of an error under /v1."""
    return _STATUSES.get(error.status, error.status)


def error_detail(error: ServiceError) -> OpenAIErrorDetail:
    return OpenAIErrorDetail(
        message=error.detail,
        type=_type(error),
        # A picture that cannot be used is always the one that was uploaded.
        param="image" if isinstance(error, ImageError) else error.param,
        code=next((code for kind, code in CODES.items() if isinstance(error, kind)), error.code),
    )


def _type(error: ServiceError) -> str:
    if isinstance(error, Blocked):
        return "image_generation_user_error"
    return _TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")


def model_list(configured: str) -> ModelList:
    """The models of the table, and the one that the settings name."""
    names = dict.fromkeys([*MODELS, configured])
    return ModelList(data=[ModelAnswer(id=name, created=_created(name)) for name in names])


def _created(name: str) -> int:
    """Midnight UTC of the day whose price list the table has; for a model outside the table, that of its newest row."""
    row = MODELS.get(name) or max(MODELS.values(), key=lambda model: model.as_of)
    return int(datetime.combine(row.as_of, time(), UTC).timestamp())
