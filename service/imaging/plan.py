"""What a worker is asked to do and what it answers: frozen, picklable values."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

from service.imaging.errors import ImagingError
from service.imaging.formats import Encoding, Format
from service.imaging.frame import Frame, Size

Fit = Literal["cover", "contain", "stretch"]
Alpha = Literal["flatten", "keep"]

WHOLE_SHARE = 10_000
DEFAULT_SHARE = 7_000


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """How one picture becomes its exports.

    `share` is the picture's part of the blend with a base, in ten-thousandths; `matte` is the RGB colour under
    transparency and around a contained picture.
    """

    frame: Frame = field(default_factory=Frame)
    fit: Fit = "cover"
    share: int = DEFAULT_SHARE
    matte: tuple[int, int, int] = (255, 255, 255)
    alpha: Alpha = "flatten"


@dataclass(frozen=True, slots=True)
class Picture:
    """What a decoded picture is: its upright size in pixels and its true format."""

    width: int
    height: int
    format: Format


@dataclass(frozen=True, slots=True)
class MadeFile:
    """One encoded and fsynced file; `size` in bytes."""

    format: Format
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ExportWarning:
    """Something that went wrong and was lived with; `format` when it concerns one export only."""

    code: str
    detail: str
    format: Format | None = None


@dataclass(frozen=True, slots=True)
class Pixels:
    """A finished RGB image as bare bytes in a file, row by row; `warnings` came up as it was made."""

    path: str
    size: Size
    warnings: tuple[ExportWarning, ...] = ()


@dataclass(frozen=True, slots=True)
class ExportJob:
    """One picture to export: absolute paths and numbers, never pixels.

    `prepared` is the base as the plan asks for it, used instead of the base's file if it has the right size. A base
    that cannot be used is a warning, or refuses the job if `base_required`.
    """

    source: str
    base: str | None
    plan: ExportPlan
    targets: tuple[tuple[Encoding, str], ...]
    prepared: Pixels | None = None
    base_required: bool = False


@dataclass(frozen=True, slots=True)
class InspectJob:
    """One picture whose headers are read; nothing is decoded."""

    source: str


@dataclass(frozen=True, slots=True)
class Rendition:
    """What else to make of a picture that is checked: a file in `encoding`, or its bare pixels without one.

    `size` None: as the plan's frame has it.
    """

    plan: ExportPlan
    target: str
    size: Size | None = None
    encoding: Encoding | None = None


@dataclass(frozen=True, slots=True)
class CheckJob:
    """One uploaded picture to decode in full, once, for all that an order needs of it."""

    source: str
    renditions: tuple[Rendition, ...]


Job = ExportJob | InspectJob | CheckJob


class Priority(IntEnum):
    """Of a job in line for a worker. `PAID`: a picture that was paid for, or the check of an upload before a call."""

    PAID = 0
    OTHER = 1


@dataclass(frozen=True, slots=True)
class ExportOutcome:
    picture: Picture
    size: Size
    composited: bool
    files: tuple[MadeFile, ...]
    warnings: tuple[ExportWarning, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """`made` has an entry for each rendition: None where it could not be made of a picture that is good."""

    picture: Picture
    made: tuple[Pixels | None, ...]


# A job is answered by its result, or by the reason why there is none: workers never raise across the pool.
Outcome = ExportOutcome | CheckOutcome | Picture | ImagingError


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What holds inside one worker: `pixels` per picture, `memory_bytes` of address space."""

    pixels: int = 40_000_000
    memory_bytes: int = 1_536 * 1024 * 1024
