"""An order for thumbnails, and the events that report the progress of its variations."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

from service.bases import Needs, Source
from service.errors import InvalidField, ServiceError
from service.gemini import models
from service.imaging.errors import ImpossibleFrame
from service.imaging.formats import Encoding
from service.imaging.frame import Frame, Size
from service.imaging.plan import ExportPlan
from service.imaging.provenance import Mark
from service.publishing import ExportSet
from service.store.layout import export_stem, request_id


@dataclass(frozen=True, slots=True)
class Order:
    """One validated request for thumbnails. Without a `plan`: framed by the ratio, blended 70/30 with the base."""

    script: str
    base: Source | None = None
    aspect_ratio: str = "16:9"
    count: int = 1
    model: str | None = None
    image_size: str = "1K"
    reference: bool = True
    plan: ExportPlan | None = None
    encodings: tuple[Encoding, ...] | None = None
    request_id: str = field(default_factory=request_id)

    def effective_plan(self, matte: tuple[int, int, int]) -> ExportPlan:
        """The plan, or the default plan with this matte, for generated pictures."""
        plan = self.plan or ExportPlan(default_frame(self.aspect_ratio, self.image_size), matte=matte)
        return replace(plan, provenance="generated")

    def needs(self, plan: ExportPlan) -> Needs:
        """The uses of the base, provided that Gemini draws pictures of its usual size."""
        return Needs(plan, _expected_size(self, plan.frame), self.count, self.reference)


@dataclass(frozen=True, slots=True)
class Sent:
    """The variation's call was sent: from now on it may cost money."""

    id: str


@dataclass(frozen=True, slots=True)
class Received:
    """The variation's raw is stored under `storage_path`; `size` is in bytes."""

    id: str
    storage_path: str
    size: int


@dataclass(frozen=True, slots=True)
class VariationMetadata:
    """The metadata of a variation in answers: of its call, of its raw, and of its exports.

    `width` and `height` are the raw's, upright; `usage` is Gemini's usageMetadata; `cost_usd` is the list price, None
    for a model outside the table. `c2pa`: the raw carries a C2PA manifest; `digital_source_type`: what the exports are
    marked with. Both are None for variations of older releases.
    """

    prompt: str
    model: str
    aspect_ratio: str
    width: int
    height: int
    mime_type: str
    sha256: str
    usage: dict[str, Any] | None
    cost_usd: float | None
    normalized_to: Size
    composited: bool
    c2pa: bool | None = None
    digital_source_type: Mark | None = None


@dataclass(frozen=True, slots=True)
class Variation:
    """The variation is exported."""

    id: str
    storage_path: str
    metadata: VariationMetadata
    exported: ExportSet


@dataclass(frozen=True, slots=True)
class Failed:
    """The variation failed; the error says whether it was billed, and names a raw that was kept."""

    id: str
    error: ServiceError


@dataclass(frozen=True, slots=True)
class Raw:
    """A picture as Gemini sent it, stored under `key`. `usage` is Gemini's usageMetadata, None if it is not known."""

    key: str
    source: Source
    usage: dict[str, Any] | None


class Record:
    """Records each step of one variation before the next one begins. This base class records nothing.

    `stem` is the beginning of the names of its exports, so that making them again overwrites them.
    """

    def __init__(self) -> None:
        self.stem = export_stem()

    async def sending(self) -> None:
        """The call is about to go out; an error raised here prevents it."""

    async def refused(self) -> None:
        """Gemini did not execute the call, which may be sent again."""

    async def cancelled(self) -> None:
        """The call will not be sent."""

    async def received(self, raw: Raw) -> None:
        """The picture is stored."""

    async def exported(self, variation: Variation) -> None:
        """The exports are published."""

    async def failed(self, error: ServiceError) -> None:
        """There will be no exports."""


@dataclass(frozen=True, slots=True)
class Start:
    """A variation to be made: all of it or, with `raw`, only the exports of a picture that was received before."""

    number: int
    record: Record = field(default_factory=Record)
    raw: Raw | None = None


Event = Sent | Received | Variation | Failed
Events = asyncio.Queue[Event | None]


def number_of(event: Event) -> int:
    """The number of the event's variation, from 1: variations end in any order, and are answered by number."""
    return int(event.id.removeprefix("var-"))


def default_frame(aspect_ratio: str, image_size: str, width: int | None = None, height: int | None = None) -> Frame:
    """The frame of a thumbnail: the requested ratio, as large as its image size allows."""
    return Frame(width, height, models.ratio_terms(aspect_ratio), models.LONGEST[image_size])


def _expected_size(order: Order, frame: Frame) -> Size | None:
    try:
        drawn = models.pixels(order.aspect_ratio, order.image_size)
    except KeyError:
        # A ratio that is not in the table: the size is known only if both sides were requested.
        drawn = None
    if frame.width and frame.height:
        return frame.width, frame.height
    try:
        return frame.size(drawn) if drawn else None
    except ImpossibleFrame:
        return None


def check_model(model: str, aspect_ratio: str, image_size: str) -> None:
    """Raise InvalidField for a ratio or size that the model lacks; for models outside the table, nothing is checked."""
    row = models.find(model)
    if row and aspect_ratio not in row.ratios:
        raise InvalidField(f"aspect_ratio={aspect_ratio!r}: {model} draws {', '.join(row.ratios)}")
    if row and image_size not in row.sizes:
        raise InvalidField(f"image_size={image_size!r}: {model} draws {', '.join(row.sizes)}")
