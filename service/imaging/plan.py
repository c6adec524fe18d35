"""The jobs of the workers and their outcomes, as frozen values that can be pickled."""

from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Literal

from service.imaging.errors import ImagingError
from service.imaging.formats import Encoding, Format
from service.imaging.frame import Frame, Size
from service.imaging.provenance import Mark

Fit = Literal["cover", "contain", "stretch"]
Alpha = Literal["flatten", "keep"]
Provenance = Literal["keep", "generated"]
Animate = Literal["first", "keep"]
# The point of a picture that a crop centres on, in ten-thousandths of its width and height; None: its centre.
Focus = tuple[int, int] | Literal["auto"] | None

WHOLE_SHARE = 10_000
DEFAULT_SHARE = 7_000


@dataclass(frozen=True, slots=True)
class Budget:
    """The most `bytes` that a file may have; `may_resize`: it may have fewer pixels than were asked for."""

    bytes: int
    may_resize: bool = False


@dataclass(frozen=True, slots=True)
class Budgets:
    """The most bytes of a file of any format, or of some formats."""

    any: int | None = None
    each: tuple[tuple[Format, int], ...] = ()
    may_resize: bool = False

    @property
    def given(self) -> bool:
        return self.any is not None or bool(self.each)

    def of(self, name: Format) -> Budget | None:
        most = dict(self.each).get(name, self.any)
        return None if most is None else Budget(most, self.may_resize)


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """How a picture is normalized, composited and marked, and how large its files may be.

    share       the picture's share of the blend with a base, in ten-thousandths
    matte       the RGB colour behind transparent pixels and around a picture of fit `contain`
    focus       where `cover` crops; a base is always cropped at its centre
    provenance  `generated`: the exports are marked as a generated picture's; `keep`: as the picture and its base are
    animate     of an animation `keep` exports every frame, `first` one
    """

    frame: Frame = field(default_factory=Frame)
    fit: Fit = "cover"
    share: int = DEFAULT_SHARE
    matte: tuple[int, int, int] = (255, 255, 255)
    alpha: Alpha = "flatten"
    focus: Focus = None
    provenance: Provenance = "keep"
    budgets: Budgets = field(default_factory=Budgets)
    animate: Animate = "first"

    def for_base(self) -> "ExportPlan":
        """The plan of a base under exports of this plan: it is opaque, and cropped at its centre."""
        return replace(self, alpha="flatten", focus=None)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: its upright size in pixels, and its format by its bytes.

    c2pa    it carries a C2PA manifest, which is not validated
    frames  of an animation; 1 for a still
    """

    width: int
    height: int
    format: Format
    c2pa: bool = False
    frames: int = 1


@dataclass(frozen=True, slots=True)
class MadeFile:
    """One encoded and fsynced file.

    size     in bytes
    pixels   its width and height
    quality  the encoder's; None for a lossless file
    colors   the limit of the palette that a budget chose; None without one
    frames   of the animation in it; 1 for a still
    """

    format: Format
    size: int
    sha256: str
    pixels: Size
    quality: int | None = None
    colors: int | None = None
    frames: int = 1


@dataclass(frozen=True, slots=True)
class ExportWarning:
    """A problem that did not stop the export; `format` is set if it concerns one format only."""

    code: str
    detail: str
    format: Format | None = None


@dataclass(frozen=True, slots=True)
class Pixels:
    """A finished RGB image as raw pixels in a file, row by row, with the warnings and the mark of its picture."""

    path: str
    size: Size
    warnings: tuple[ExportWarning, ...] = ()
    mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class ExportJob:
    """One picture to export: absolute paths and numbers, never pixels.

    targets        the encodings, and the existing files to write them to
    prepared       the base, normalized by the plan: used instead of its file if it has the size of the exports
    base_required  a base that cannot be used is an error; else it is a warning
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
    """Another form of a picture, made while it is checked: encoded, or raw pixels if `encoding` is None.

    `size` None: the size by the plan's frame.
    """

    plan: ExportPlan
    target: str
    size: Size | None = None
    encoding: Encoding | None = None


@dataclass(frozen=True, slots=True)
class CheckJob:
    """One base to decode in full, once, for all that an order needs of it."""

    source: str
    renditions: tuple[Rendition, ...]


Job = ExportJob | InspectJob | CheckJob


class Priority(IntEnum):
    """Of a job in the queue. `PAID`: a picture that was paid for, or the check of an upload before a call."""

    PAID = 0
    OTHER = 1


@dataclass(frozen=True, slots=True)
class StepTime:
    """A step of a job: when it began, in Unix time, and its seconds; `format` None: all formats share it."""

    step: str
    format: Format | None
    start: float
    seconds: float


@dataclass(frozen=True, slots=True)
class ExportOutcome:
    """What became of an ExportJob; how long its steps took makes no difference between two outcomes."""

    picture: Picture
    size: Size
    composited: bool
    files: tuple[MadeFile, ...]
    warnings: tuple[ExportWarning, ...] = ()
    mark: Mark | None = None
    steps: tuple[StepTime, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """`made` has an entry for each rendition: None if it could not be made, though the picture is good."""

    picture: Picture
    made: tuple[Pixels | None, ...]


# Workers return errors instead of raising them: an exception that cannot be unpickled would break the pool.
Outcome = ExportOutcome | CheckOutcome | Picture | ImagingError


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """The limits of one worker.

    pixels            of a picture
    memory_bytes      of address space
    cpu_seconds       of a job
    animation_frames  of an animation whose frames are all exported
    animation_pixels  of all of these frames together, as they are stored and as they are exported
    """

    pixels: int = 40_000_000
    memory_bytes: int = 1_536 * 1024 * 1024
    cpu_seconds: float = 60.0
    animation_frames: int = 1_000
    animation_pixels: int = 50_000_000
