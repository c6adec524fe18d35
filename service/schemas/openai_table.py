"""The fields of the OpenAI images API, for parsing as well as for the description."""

import re
from typing import Any, Literal

from service.schemas.fields import Field
from service.schemas.kinds import Boolean, Choice, Pattern, Text, Whole
from service.schemas.table import MAX_SCRIPT, SCRIPT
from service.values import MODEL_NAME, MODEL_NAME_RULE

OutputFormat = Literal["png", "jpeg", "webp", "avif"]
ResponseFormat = Literal["b64_json", "url"]

# Names by which clients that cannot be told another model ask for GEMINI_MODEL.
OPENAI_MODELS = ("gpt-image", "chatgpt-image", "dall-e")
IMAGE_SIZES = {
    "low": "1K", "medium": "1K", "auto": "1K", "standard": "1K", "high": "2K", "hd": "2K", "xhigh": "4K", "max": "4K",
}  # fmt: skip
MAX_PARTIAL_IMAGES = 3

PROMPT = Field(
    "prompt", SCRIPT.kind, f"What the pictures are about, at most {MAX_SCRIPT:,} characters; sent to Gemini verbatim",
    required=True,
)  # fmt: skip
MODEL = Field(
    "model",
    Pattern(re.compile(rf"(?:{'|'.join(OPENAI_MODELS)}).*|{MODEL_NAME.pattern}", re.DOTALL), MODEL_NAME_RULE),
    f"A model of Gemini; any name that begins with {', '.join(OPENAI_MODELS)} is `GEMINI_MODEL`",
    default=lambda settings: settings.gemini_model,
)
SIZE = Field(
    "size",
    Pattern(
        re.compile(r"auto|[1-9][0-9]{0,3}x[1-9][0-9]{0,3}", re.ASCII),
        "auto, or WIDTHxHEIGHT such as 1280x720, each from 1 to 8192",
    ),
    "The exact size of the files in pixels, each side 1 to 8192; `auto` is 1280x720. The nearest ratio that the model"
    " has is asked of Gemini",
    default="auto",
)
QUALITY = Field(
    "quality",
    Choice(tuple(IMAGE_SIZES)),
    "How large Gemini draws: `low`, `medium`, `standard` and `auto` 1K, `high` and `hd` 2K, `xhigh` and `max` 4K, at"
    " most what the model has",
    default="auto",
)
OUTPUT_FORMAT: Field[OutputFormat] = Field(
    "output_format", Choice(("png", "jpeg", "webp", "avif")), "The format of the files", default="png"
)
OUTPUT_COMPRESSION = Field(
    "output_compression", Whole(0, 100), "The quality of JPEG, WebP and AVIF; not allowed with PNG"
)
RESPONSE_FORMAT: Field[ResponseFormat] = Field(
    "response_format", Choice(("b64_json", "url")), "Files as base64, or as links; with `stream` only as base64",
    default="b64_json",
)  # fmt: skip
BACKGROUND = Field("background", Choice(("opaque", "auto")), "Pictures are always opaque", default="auto")
STREAM = Field("stream", Boolean(), "`true`: server-sent events, one for each picture as it is ready", default=False)
PARTIAL_IMAGES = Field(
    "partial_images", Whole(0, MAX_PARTIAL_IMAGES), "Accepted; no partial pictures are sent", default=0
)


def n_up_to(most: int) -> Field[int]:
    """`n`, bounded by MAX_VARIATIONS."""
    return Field("n", Whole(1, most), "How many pictures, 1 to `MAX_VARIATIONS`", default=1)


# Clients send them, but they have no meaning for Gemini.
IGNORED: tuple[Field[Any], ...] = tuple(
    Field(name, Text("anything", {}), "Accepted and ignored")
    for name in ("moderation", "user", "safety_identifier", "style", "input_fidelity")
)


def images(max_variations: int) -> tuple[Field[Any], ...]:
    """The fields of a request for pictures."""
    return (
        PROMPT, n_up_to(max_variations), MODEL, SIZE, QUALITY, OUTPUT_FORMAT, OUTPUT_COMPRESSION, RESPONSE_FORMAT,
        BACKGROUND, STREAM, PARTIAL_IMAGES, *IGNORED,
    )  # fmt: skip
