"""Reads requests to the OpenAI images API: its fields as an order, and how the pictures are answered."""

import json
from dataclasses import dataclass, replace

from service.bases import Source
from service.callers import Limits
from service.encodings import default_encodings
from service.gemini import models
from service.imaging.formats import Encoding, Format, at_quality, avif_refusal, quality_of
from service.imaging.frame import MAX_SIDE, Size
from service.imaging.plan import WHOLE_SHARE, ExportPlan
from service.orders import Order, default_frame
from service.schemas import openai_table as table
from service.schemas.collecting import Collected
from service.schemas.fields import Fields, not_allowed
from service.schemas.json_body import Json, JsonObject
from service.schemas.json_fields import fields_of_json
from service.schemas.requests import read_script
from service.settings import Settings

FIELDS = tuple(field.name for field in table.images(1))
DEFAULT_SIZE = 1280, 720
_IGNORED = frozenset(field.name for field in table.IGNORED)
LONG = (table.PROMPT.name, *_IGNORED)
# Clients that may send several pictures call each of them this.
ALIASES = {"image[]": "image"}


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """An order for pictures in one format, and how they are answered: as links or base64, at once or as a stream."""

    order: Order
    format: Format
    as_links: bool
    stream: bool


def read_json_fields(body: JsonObject) -> Fields:
    """The fields of a JSON body; a field that is ignored may have any value. Raises RequestError."""
    plain = {name: _as_text(value) if name in _IGNORED else value for name, value in body.items()}
    return fields_of_json(plain, Collected(FIELDS, long=LONG))


def _as_text(value: Json) -> Json:
    """An object or a list as text, which `fields_of_json` would refuse."""
    return json.dumps(value) if isinstance(value, (dict, list)) else value


def read_image_request(
    fields: Fields, settings: Settings, request_id: str, base: Source | None, limits: Limits
) -> ImageRequest:
    """Parse a request for pictures of a caller with these limits; with `base` it is the reference of them all.

    Raises RequestError.
    """
    prompt, model = read_script(fields, table.PROMPT), _model(fields, settings)
    image_size = models.largest_size(model, table.IMAGE_SIZES[fields.read(table.QUALITY, "auto")])
    picture_format = fields.read(table.OUTPUT_FORMAT, "png")
    width, height = _size(fields, picture_format, settings)
    aspect_ratio = models.nearest_ratio(model, width, height)
    plan = ExportPlan(default_frame(aspect_ratio, image_size, width, height), matte=settings.matte_rgb)
    fields.read(table.BACKGROUND)
    fields.read(table.PARTIAL_IMAGES)
    stream, response_format = fields.read(table.STREAM, False), fields.read(table.RESPONSE_FORMAT, "b64_json")
    if stream and response_format != "b64_json":
        raise not_allowed("response_format", response_format, "only b64_json with stream=true")
    order = Order(
        script=prompt,
        base=base,
        aspect_ratio=aspect_ratio,
        count=fields.read(table.n_up_to(limits.most_variations(settings.max_variations)), 1),
        model=model,
        image_size=image_size,
        plan=replace(plan, share=WHOLE_SHARE) if base else plan,
        encodings=(_encoding(fields, default_encodings(settings)[picture_format]),),
        request_id=request_id,
    )
    return ImageRequest(order, picture_format, response_format == "url", stream)


def _model(fields: Fields, settings: Settings) -> str:
    model = fields.read(table.MODEL, settings.gemini_model)
    return settings.gemini_model if model.startswith(table.OPENAI_MODELS) else model


def _size(fields: Fields, picture_format: Format, settings: Settings) -> Size:
    """The size of the files; raises InvalidField for one that the format or MAX_IMAGE_PIXELS does not allow."""
    text = fields.read(table.SIZE, "auto")
    width, height = DEFAULT_SIZE if text == "auto" else map(int, text.split("x"))
    if max(width, height) > MAX_SIDE:
        raise not_allowed("size", text, table.SIZE.kind.allowed)
    if width * height > settings.max_image_pixels:
        raise not_allowed("size", text, f"at most {settings.max_image_pixels} pixels")
    if picture_format == "avif" and (refusal := avif_refusal((width, height))):
        raise not_allowed("size", text, refusal)
    return width, height


def _encoding(fields: Fields, default: Encoding) -> Encoding:
    quality = fields.read(table.OUTPUT_COMPRESSION)
    if quality is None:
        return default
    if quality_of(default) is None:
        raise not_allowed("output_compression", str(quality), "only with output_format jpeg, webp or avif")
    return at_quality(default, quality)
