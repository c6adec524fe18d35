"""Strict parsing of the text fields of a form; every error says what is allowed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

from service.bases import Source
from service.encodings import default_encodings
from service.errors import InvalidField, MissingField, NotUtf8
from service.gemini import models
from service.imaging.errors import ImpossibleFrame
from service.imaging.formats import DEFAULT_FORMATS, FORMATS, NAMES, Encoding, Format, Subsampling, listed
from service.imaging.frame import MAX_SIDE, Frame
from service.imaging.plan import WHOLE_SHARE, Alpha, ExportPlan, Fit
from service.orders import Order, check_model, default_frame
from service.settings import Settings
from service.values import MODEL_NAME, MODEL_NAME_RULE, is_utf8, parse_colour

T = TypeVar("T")

MAX_SCRIPT = 32_000  # characters
EXPORT_LONGEST = 1280  # pixels of the longer side of an export without a requested size
DEFAULT_DAYS, MAX_DAYS = 30, 400

EXPORT_FIELDS = (
    "width", "height", "fit", "blend", "formats", "jpeg_quality", "webp_quality", "png_compression", "progressive",
    "matte", "alpha", "jpeg_subsampling", "webp_lossless", "avif_quality",
)  # fmt: skip
THUMBNAIL_FIELDS = ("script", "aspect_ratio", "count", "model", "image_size", "reference", *EXPORT_FIELDS)

_BOOLEANS = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}
_SHARE = re.compile(r"[0-9]?\.?[0-9]{0,4}", re.ASCII)
_RATIO = re.compile(r"[1-9][0-9]?:[1-9][0-9]?", re.ASCII)
_FITS: dict[str, Fit] = {"cover": "cover", "contain": "contain", "stretch": "stretch"}
_ALPHAS: dict[str, Alpha] = {"keep": "keep", "flatten": "flatten"}
_SUBSAMPLINGS: dict[str, Subsampling] = {"4:2:0": "4:2:0", "4:2:2": "4:2:2", "4:4:4": "4:4:4"}


@dataclass(frozen=True, slots=True)
class Fields:
    """The text of each field by its name. An empty value counts as absent; every method raises InvalidField."""

    texts: Mapping[str, str]

    def text(self, name: str) -> str | None:
        return self.texts.get(name) or None

    def integer(self, name: str, low: int, high: int) -> int | None:
        text = self.text(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= 9 and low <= int(text) <= high):
            raise _not_allowed(name, text, f"a whole number from {low} to {high}")
        return int(text)

    def boolean(self, name: str, default: bool) -> bool:
        value = self.optional_boolean(name)
        return default if value is None else value

    def optional_boolean(self, name: str) -> bool | None:
        text = self.text(name)
        if text is None:
            return None
        if text.lower() not in _BOOLEANS:
            raise _not_allowed(name, text, "true, false, 1, 0, on or off")
        return _BOOLEANS[text.lower()]

    def choice(self, name: str, choices: Mapping[str, T], default: T) -> T:
        text = self.text(name)
        if text is None:
            return default
        if text not in choices:
            raise _not_allowed(name, text, ", ".join(choices))
        return choices[text]

    def share(self, name: str, default: int) -> int:
        """A number from 0 to 1 with at most 4 decimals, in units of 1/10,000."""
        text = self.text(name)
        if text is None:
            return default
        whole, _, decimals = text.partition(".")
        share = int(whole or "0") * WHOLE_SHARE + int(decimals.ljust(4, "0")) if _SHARE.fullmatch(text) else -1
        if text == "." or not 0 <= share <= WHOLE_SHARE:
            raise _not_allowed(name, text, "a number from 0 to 1 with at most 4 decimals")
        return share

    def formats(self, name: str) -> Sequence[Format]:
        """The requested formats without duplicates, in the order of the table."""
        text = self.text(name)
        if text is None:
            return DEFAULT_FORMATS
        requested = {NAMES.get(part.strip().lower()) for part in text.split(",")}
        if None in requested:
            raise _not_allowed(name, text, f"a comma-separated list of {listed(FORMATS, 'and')}")
        return [each for each in FORMATS if each in requested]

    def colour(self, name: str, default: tuple[int, int, int]) -> tuple[int, int, int]:
        text = self.text(name)
        try:
            return parse_colour(text) if text else default
        except ValueError:
            raise _not_allowed(name, text or "", "a colour such as #ffffff") from None


def read_order(fields: Fields, settings: Settings, request_id: str, base: Source | None) -> Order:
    """Parse a request for thumbnails; raises MissingField, InvalidField, NotUtf8."""
    script = _script(fields)
    model = fields.text("model") or settings.gemini_model
    if not MODEL_NAME.fullmatch(model):
        raise _not_allowed("model", model, MODEL_NAME_RULE)
    aspect_ratio = fields.text("aspect_ratio") or "16:9"
    if aspect_ratio not in models.RATIOS and (models.find(model) or not _RATIO.fullmatch(aspect_ratio)):
        raise _not_allowed("aspect_ratio", aspect_ratio, ", ".join(models.RATIOS))
    image_size = fields.choice("image_size", {size: size for size in models.SIZES}, "1K")
    check_model(model, aspect_ratio, image_size)
    width, height = _sides(fields)
    frame = default_frame(aspect_ratio, image_size, width, height)
    return Order(
        script=script,
        base=base,
        aspect_ratio=aspect_ratio,
        count=fields.integer("count", 1, settings.max_variations) or 1,
        model=model,
        image_size=image_size,
        reference=fields.boolean("reference", default=True),
        plan=_plan(fields, ExportPlan(frame, matte=settings.matte_rgb)),
        encodings=tuple(_encodings(fields, default_encodings(settings), fields.formats("formats"))),
        request_id=request_id,
    )


def read_export(fields: Fields, settings: Settings) -> tuple[ExportPlan, Sequence[Encoding]]:
    """Parse the fields of a request to `/api/exports`; raises InvalidField."""
    width, height = _sides(fields)
    plan = _plan(fields, ExportPlan(Frame(width, height, longest=EXPORT_LONGEST), matte=settings.matte_rgb))
    return plan, _encodings(fields, default_encodings(settings), fields.formats("formats"))


def read_changes(fields: Fields, settings: Settings, order: Order) -> tuple[ExportPlan, Sequence[Encoding]]:
    """Parse the fields of a request to export an order again: they override its own. Raises InvalidField.

    `width` and `height` are one setting: either of them replaces both.
    """
    plan = order.effective_plan(settings.matte_rgb)
    width, height = _sides(fields)
    if width or height:
        plan = replace(plan, frame=default_frame(order.aspect_ratio, order.image_size, width, height))
    before = {encoding.format: encoding for encoding in order.encodings or ()}
    wanted = fields.formats("formats") if fields.text("formats") else tuple(before) or DEFAULT_FORMATS
    return _plan(fields, plan), _encodings(fields, default_encodings(settings) | before, wanted)


def read_days(first: str | None, last: str | None) -> tuple[str, str]:
    """The first and last UTC day of a report, both included, by default the last 30 days; raises InvalidField."""
    end = _day("to", last) if last else datetime.now(UTC).date()
    begin = _day("from", first) if first else end - timedelta(days=DEFAULT_DAYS - 1)
    if begin > end:
        raise InvalidField("from is later than to")
    if (end - begin).days >= MAX_DAYS:
        raise InvalidField(f"from and to are too far apart: at most {MAX_DAYS} days")
    return begin.isoformat(), end.isoformat()


def _day(name: str, text: str) -> date:
    try:
        if len(text) != len("2026-11-26"):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidField(f"{name}={text[:20]!r} is not allowed: a day such as 2026-11-26") from None


def _script(fields: Fields) -> str:
    script = fields.text("script")
    if script is None or not script.strip():
        raise MissingField(f"script is required: 1 to {MAX_SCRIPT} characters that are not all blank")
    if len(script) > MAX_SCRIPT:
        raise script_too_long()
    if not is_utf8(script):
        raise NotUtf8("script is not UTF-8")
    return script


def script_too_long() -> InvalidField:
    return InvalidField(f"script is too long: at most {MAX_SCRIPT} characters are allowed")


def _sides(fields: Fields) -> tuple[int | None, int | None]:
    return fields.integer("width", 1, MAX_SIDE), fields.integer("height", 1, MAX_SIDE)


def _plan(fields: Fields, default: ExportPlan) -> ExportPlan:
    """The default plan, overridden by the requested fields."""
    _check_size(default.frame)
    return replace(
        default,
        fit=fields.choice("fit", _FITS, default.fit),
        share=fields.share("blend", default.share),
        matte=fields.colour("matte", default.matte),
        alpha=fields.choice("alpha", _ALPHAS, default.alpha),
    )


def _check_size(frame: Frame) -> None:
    """Raise InvalidField for an impossible size; with a ratio of its own the frame shows it before any call."""
    try:
        if frame.ratio:
            frame.size(frame.ratio)
    except ImpossibleFrame as error:
        raise InvalidField(f"width and height: {error.detail}") from None


def _encodings(fields: Fields, default: Mapping[Format, Encoding], formats: Sequence[Format]) -> Sequence[Encoding]:
    """The encoding of each format: its default, overridden by the requested fields."""
    requested: dict[Format, dict[str, Any]] = {
        "png": {"compression": fields.integer("png_compression", 0, 9)},
        "jpeg": {
            "quality": fields.integer("jpeg_quality", 0, 100),
            "progressive": fields.optional_boolean("progressive"),
            "subsampling": fields.choice("jpeg_subsampling", _SUBSAMPLINGS, None),
        },
        "webp": {
            "quality": fields.integer("webp_quality", 0, 100),
            "lossless": fields.optional_boolean("webp_lossless"),
        },
        "avif": {"quality": fields.integer("avif_quality", 0, 100)},
    }
    return [replace(default[each], **_present(requested.get(each, {}))) for each in formats]


def _present(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _not_allowed(name: str, text: str, allowed: str) -> InvalidField:
    shown = text if len(text) <= 60 else f"{text[:60]}…"
    return InvalidField(f"{name}={shown!r} is not allowed: {allowed}")
