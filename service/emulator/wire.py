"""The server side of Gemini's REST protocol: parses and validates requests like Google, and builds replies."""

import base64
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from PIL import Image
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from service.gemini import models
from service.imaging.formats import SNIFF_BYTES, TABLE, sniff

Json = dict[str, Any]

MAX_REFERENCES = 14
MAX_REFERENCE_BYTES = 7 * 1024 * 1024
MAX_REFERENCE_PIXELS = 50_000_000
MIN_DEADLINE_SECONDS = 10

_HEIF = ("image/heic", "image/heif")
_MIME_TYPES = ("image/png", "image/jpeg", "image/webp", *_HEIF)
_KEPT_HEADERS = ("content-type", "user-agent", "x-goog-api-client", "x-server-timeout")

_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class ApiError(Exception):
    """A request that Google rejects: the status and body of the error."""

    def __init__(self, code: int, message: str, details: Iterable[Json] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.body = error(code, message, details=details)


def error(code: int, message: str, status: str | None = None, details: Iterable[Json] = ()) -> Json:
    body: Json = {"code": code, "message": message, "status": status or _STATUS[code]}
    if details := list(details):
        body["details"] = details
    return {"error": body}


def detail(kind: str, **fields: object) -> Json:
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


@dataclass(frozen=True, slots=True)
class ReferencePicture:
    mime_type: str
    sha256: str
    size: tuple[int, int] | None
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """A parsed request; `headers` are lower-case and without the key."""

    version: str
    model: str
    prompt: str
    aspect_ratio: str | None
    image_size: str | None
    modalities: tuple[str, ...]
    references: tuple[ReferencePicture, ...]
    headers: Mapping[str, str]

    @property
    def pixels(self) -> tuple[int, int]:
        """The width and height that Gemini draws: without a ratio, that of the first reference, else square."""
        ratio = self.aspect_ratio
        if ratio is None and self.references and (size := self.references[0].size):
            row = models.find(self.model)
            ratio = _nearest(size, row.ratios if row else models.RATIOS)
        return models.pixels(ratio or "1:1", self.image_size or "1K")

    def without_data(self) -> "GenerateRequest":
        """A copy without the bytes of the pictures, to be recorded."""
        return replace(self, references=tuple(replace(one, data=b"") for one in self.references))

    def summary(self) -> Json:
        return {
            "version": self.version,
            "model": self.model,
            "prompt": self.prompt,
            "aspect_ratio": self.aspect_ratio,
            "image_size": self.image_size,
            "modalities": self.modalities,
            "references": [
                {"mime_type": one.mime_type, "sha256": one.sha256, "size": one.size} for one in self.references
            ],
            "headers": dict(self.headers),
        }


def _nearest(size: tuple[int, int], ratios: Iterable[str]) -> str:
    own = size[0] / size[1]

    def distance(ratio: str) -> float:
        a, b = models.ratio_terms(ratio)
        return max(own * b / a, a / b / own)

    return min(ratios, key=distance)


def _from_base64(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("not a string")
    unpadded = value.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True)


class _Message(BaseModel):
    """Accepts camelCase and snake_case for every field, like Google; the SDK mixes them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class _Blob(_Message):
    mime_type: str
    data: Annotated[bytes, BeforeValidator(_from_base64)]


class _Part(_Message):
    text: str | None = None
    inline_data: _Blob | None = None


class _Content(_Message):
    parts: list[_Part] = []


class _ImageConfig(_Message):
    aspect_ratio: str | None = None
    image_size: str | None = None


class _GenerationConfig(_Message):
    response_modalities: list[str] = []
    image_config: _ImageConfig = _ImageConfig()


class _GenerateContent(_Message):
    contents: list[_Content] = []
    generation_config: _GenerationConfig = _GenerationConfig()


def read(version: str, model: str, headers: Mapping[str, str], body: bytes) -> GenerateRequest:
    """Parse a request; raises ApiError where Google answers 4xx. Slow for large pictures."""
    _check_deadline(headers.get("x-server-timeout"))
    try:
        message = _GenerateContent.model_validate_json(body)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ApiError(400, f"Invalid JSON payload received. Invalid value at '{where}': {first['msg']}") from None
    parts = [part for content in message.contents for part in content.parts]
    if not parts:
        raise ApiError(400, "* GenerateContentRequest.contents: contents is not specified\n")
    config = message.generation_config
    _check_image_config(model, config.image_config)
    return GenerateRequest(
        version=version,
        model=model,
        prompt="\n".join(part.text for part in parts if part.text),
        aspect_ratio=config.image_config.aspect_ratio,
        image_size=config.image_config.image_size,
        modalities=tuple(config.response_modalities),
        references=_references([part.inline_data for part in parts if part.inline_data]),
        headers={name: headers[name] for name in _KEPT_HEADERS if name in headers},
    )


def _check_deadline(seconds: str | None) -> None:
    if seconds and float(seconds) < MIN_DEADLINE_SECONDS:
        raise ApiError(
            400, f"Manually set deadline {seconds}s is too short. Minimum allowed deadline is {MIN_DEADLINE_SECONDS}s."
        )


def _check_image_config(model: str, config: _ImageConfig) -> None:
    row = models.find(model)
    if config.aspect_ratio and config.aspect_ratio not in (row.ratios if row else models.RATIOS):
        raise ApiError(400, f"aspect_ratio {config.aspect_ratio!r} is not supported by {model}.")
    if config.image_size and config.image_size not in (row.sizes if row else models.SIZES):
        raise ApiError(400, f"image_size {config.image_size!r} is not supported by {model}.")


def _references(blobs: list[_Blob]) -> tuple[ReferencePicture, ...]:
    if len(blobs) > MAX_REFERENCES:
        raise ApiError(400, f"At most {MAX_REFERENCES} pictures can be sent.")
    return tuple(map(_reference, blobs))


def _reference(blob: _Blob) -> ReferencePicture:
    if blob.mime_type not in _MIME_TYPES:
        raise ApiError(400, f"Unsupported MIME type: {blob.mime_type}")
    if len(blob.data) > MAX_REFERENCE_BYTES:
        raise ApiError(400, f"A picture has {len(blob.data)} bytes; at most {MAX_REFERENCE_BYTES} are allowed.")
    size = None if blob.mime_type in _HEIF else _upright_size(blob)
    return ReferencePicture(blob.mime_type, hashlib.sha256(blob.data).hexdigest(), size, blob.data)


def _upright_size(blob: _Blob) -> tuple[int, int]:
    true = sniff(blob.data[:SNIFF_BYTES])
    if not true or TABLE[true].mime != blob.mime_type:
        raise ApiError(400, f"Unable to process input image: its bytes are not {blob.mime_type}.")
    try:
        with Image.open(io.BytesIO(blob.data), formats=[TABLE[true].pillow]) as picture:
            size, turned = picture.size, picture.getexif().get(0x0112, 1) >= 5
    except Exception as exc:  # Pillow raises almost any exception for invalid bytes
        raise ApiError(400, "Unable to process input image.") from exc
    if size[0] * size[1] > MAX_REFERENCE_PIXELS:
        raise ApiError(400, "Unable to process input image: too many pixels.")
    return (size[1], size[0]) if turned else size


def picture_part(data: bytes, mime_type: str = "image/png") -> Json:
    return {"inlineData": {"mimeType": mime_type, "data": base64.b64encode(data).decode("ascii")}}


def reply(received: GenerateRequest, parts: list[Json], response_id: str) -> Json:
    """A complete reply with these parts, and the tokens of the table of models."""
    row = models.find(received.model)
    drawn = row.tokens[received.image_size or "1K"] if row else models.MODELS[models.DEFAULT_MODEL].tokens["1K"]
    text, references = len(received.prompt) // 4 + 1, 258 * len(received.references)
    asked = text + references
    return {
        "candidates": [{"content": {"parts": parts, "role": "model"}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {
            "promptTokenCount": asked,
            "candidatesTokenCount": drawn,
            "totalTokenCount": asked + drawn,
            "promptTokensDetails": [
                {"modality": "TEXT", "tokenCount": text},
                *([{"modality": "IMAGE", "tokenCount": references}] if references else []),
            ],
            "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": drawn}],
        },
        "modelVersion": received.model,
        "responseId": response_id,
    }


def dump(body: object) -> bytes:
    return json.dumps(body).encode()
