"""Parse the fields of each kind of request; every error says what is allowed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from service.bases import Source
from service.budgets import budget_of_each
from service.callers import NO_LIMITS, Limits
from service.encodings import default_encodings
from service.errors import InvalidField, MissingField, NotUtf8
from service.gemini import models
from service.imaging.errors import ImpossibleFrame
from service.imaging.formats import Encoding, Format
from service.imaging.frame import Frame
from service.imaging.plan import Budgets, ExportPlan, Fit, Focus
from service.orders import Order, check_model, default_frame
from service.schemas import table
from service.schemas.fields import Field, Fields, not_allowed
from service.schemas.table import MAX_SCRIPT
from service.settings import Settings
from service.values import is_utf8

EXPORT_LONGEST = 1280  # pixels of the longer side of an export without a requested size
DEFAULT_DAYS, MAX_DAYS = 30, 400

EXPORT_FIELDS = tuple(field.name for field in table.EXPORTS)
PICTURE_FIELDS = tuple(field.name for field in table.PICTURE)
THUMBNAIL_FIELDS = tuple(field.name for field in table.thumbnails(1))


def read_order(
    fields: Fields, settings: Settings, request_id: str, base: Source | None, limits: Limits = NO_LIMITS
) -> Order:
    """Parse a request for thumbnails of a caller with these limits; raises MissingField, InvalidField, NotUtf8."""
    script = read_script(fields, table.SCRIPT)
    model = fields.read(table.MODEL, settings.gemini_model)
    aspect_ratio = fields.read(table.ASPECT_RATIO, "16:9")
    if aspect_ratio not in models.RATIOS and models.find(model):
        raise not_allowed("aspect_ratio", aspect_ratio, table.ASPECT_RATIO.kind.allowed)
    image_size = fields.read(table.IMAGE_SIZE, "1K")
    check_model(model, aspect_ratio, image_size)
    width, height = _sides(fields)
    frame = default_frame(aspect_ratio, image_size, width, height)
    formats = fields.read(table.FORMATS, settings.formats)
    return Order(
        script=script,
        base=base,
        aspect_ratio=aspect_ratio,
        count=fields.read(table.count_up_to(limits.most_variations(settings.max_variations)), 1),
        model=model,
        image_size=image_size,
        reference=fields.read(table.REFERENCE, True),
        plan=_plan(fields, ExportPlan(frame, matte=settings.matte_rgb), formats),
        encodings=tuple(_encodings(fields, default_encodings(settings), formats)),
        request_id=request_id,
    )


def read_export(fields: Fields, settings: Settings) -> tuple[ExportPlan, Sequence[Encoding]]:
    """Parse the fields of a request to `/api/exports`; raises InvalidField."""
    width, height = _sides(fields)
    default = ExportPlan(
        Frame(width, height, longest=EXPORT_LONGEST),
        matte=settings.matte_rgb,
        provenance=fields.read(table.PROVENANCE, "keep"),
        animate=fields.read(table.ANIMATE, "first"),
    )
    formats = fields.read(table.FORMATS, settings.formats)
    plan = _plan(fields, default, formats)
    if plan.animate == "keep" and plan.budgets.given:
        raise not_allowed("animate", plan.animate, "only without max_bytes")
    return plan, _encodings(fields, default_encodings(settings), formats)


def read_changes(fields: Fields, settings: Settings, order: Order) -> tuple[ExportPlan, Sequence[Encoding]]:
    """Parse the fields of a request to export an order again: they override its own. Raises InvalidField.

    `width` and `height` are one setting: either of them replaces both. A focus of before is dropped with another `fit`
    than `cover`.
    """
    plan = order.effective_plan(settings.matte_rgb)
    width, height = _sides(fields)
    if width or height:
        plan = replace(plan, frame=default_frame(order.aspect_ratio, order.image_size, width, height))
    before = {encoding.format: encoding for encoding in order.encodings or ()}
    wanted = fields.read(table.FORMATS, tuple(before) or settings.formats)
    return _plan(fields, plan, wanted), _encodings(fields, default_encodings(settings) | before, wanted)


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


def read_script(fields: Fields, field: Field[str]) -> str:
    """The text of a field that says what to draw; raises MissingField, InvalidField, NotUtf8."""
    script = fields.text(field.name)
    if script is None or not script.strip():
        raise MissingField(f"{field.name} is required: {field.kind.allowed}", param=field.name)
    if len(script) > MAX_SCRIPT:
        raise too_long(field.name)
    if not is_utf8(script):
        raise NotUtf8(f"{field.name} is not UTF-8", param=field.name)
    return script


def too_long(name: str) -> InvalidField:
    return InvalidField(f"{name} is too long: at most {MAX_SCRIPT} characters are allowed", param=name)


def _sides(fields: Fields) -> tuple[int | None, int | None]:
    return fields.read(table.WIDTH), fields.read(table.HEIGHT)


def _plan(fields: Fields, default: ExportPlan, formats: Collection[Format]) -> ExportPlan:
    """The default plan, overridden by the requested fields."""
    _check_size(default.frame)
    fit = fields.read(table.FIT, default.fit)
    return replace(
        default,
        fit=fit,
        share=fields.read(table.BLEND, default.share),
        matte=fields.read(table.MATTE, default.matte),
        alpha=fields.read(table.ALPHA, default.alpha),
        focus=_focus(fields, default.focus, fit),
        budgets=_budgets(fields, default.budgets, formats),
    )


def _focus(fields: Fields, default: Focus, fit: Fit) -> Focus:
    focus = fields.read(table.FOCUS)
    if fit == "cover":
        return focus or default
    if focus:
        raise not_allowed("focus", fields.texts["focus"], "only with fit=cover")
    return None


def _budgets(fields: Fields, default: Budgets, formats: Collection[Format]) -> Budgets:
    budgets, asked = default, fields.read(table.MAX_BYTES)
    if isinstance(asked, int):
        budgets = Budgets(any=asked)
    elif asked:
        try:
            budgets = Budgets(each=budget_of_each(asked, formats))
        except ValueError as error:
            raise not_allowed("max_bytes", fields.texts["max_bytes"], str(error)) from None
    return replace(budgets, may_resize=fields.read(table.ALLOW_RESIZE, default.may_resize))


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
        "png": {"compression": fields.read(table.PNG_COMPRESSION)},
        "jpeg": {
            "quality": fields.read(table.JPEG_QUALITY),
            "progressive": fields.read(table.PROGRESSIVE),
            "subsampling": fields.read(table.JPEG_SUBSAMPLING),
        },
        "webp": {
            "quality": fields.read(table.WEBP_QUALITY),
            "lossless": fields.read(table.WEBP_LOSSLESS),
        },
        "avif": {"quality": fields.read(table.AVIF_QUALITY)},
    }
    return [replace(default[each], **_present(requested.get(each, {}))) for each in formats]


def _present(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
