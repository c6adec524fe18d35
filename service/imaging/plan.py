"""What a worker is asked to do and what it answers: frozen, picklable values."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar, Literal

from service.imaging.errors import ImagingError, ImpossibleFrame
from service.imaging.formats import Format

Fit = Literal["cover", "contain", "stretch"]
Alpha = Literal["flatten", "keep"]
Subsampling = Literal["4:2:0", "4:2:2", "4:4:4"]
Size = tuple[int, int]

MAX_SIDE = 8192
WHOLE_SHARE = 10_000
DEFAULT_SHARE = 7_000


@dataclass(frozen=True, slots=True)
class Frame:
    """The rule that turns a picture's size into the size of its exports, in pixels.

    width and height      met exactly
    one of them           the other follows `ratio` (else the picture's own), rounded half up
    neither, with ratio   the largest whole multiple of the ratio that fits into the picture and into `longest`
    neither, without      the picture's own size, scaled down until the longer side is at most `longest`
    """

    width: int | None = None
    height: int | None = None
    ratio: Size | None = None
    longest: int | None = None

    def keeps_all(self, picture: Size, size: Size) -> bool:
        """Whether `size` is what the frame makes of the picture's own ratio: nothing of it is to be cut then."""
        if self.ratio or (self.width and self.height):
            return False
        (width, height), (of_width, of_height) = size, picture
        return height == _scaled(width * of_height, of_width) or width == _scaled(height * of_width, of_height)

    def size(self, picture: Size) -> Size:
        """The size for a picture of size `picture`, both upright; raises ImpossibleFrame."""
        a, b = self.ratio or picture
        if self.width and self.height:
            return self.width, self.height
        if self.width:
            return self.width, _side(self.width * b, a)
        if self.height:
            return _side(self.height * a, b), self.height
        if self.ratio:
            k = min(picture[0] // a, picture[1] // b)
            if self.longest:
                k = min(k, self.longest // max(a, b))
            return max(1, k) * a, max(1, k) * b
        longest = min(self.longest or max(picture), max(picture))
        return _scaled(picture[0] * longest, max(picture)), _scaled(picture[1] * longest, max(picture))


def _scaled(numerator: int, denominator: int) -> int:
    return max(1, (2 * numerator + denominator) // (2 * denominator))


def _side(numerator: int, denominator: int) -> int:
    side = _scaled(numerator, denominator)
    if side > MAX_SIDE:
        raise ImpossibleFrame(f"the other side would be {side} pixels; at most {MAX_SIDE} are allowed")
    return side


@dataclass(frozen=True, slots=True)
class PngEncoding:
    format: ClassVar[Format] = "png"
    compression: int = 9
    thorough: bool = False
    palette: bool = False


@dataclass(frozen=True, slots=True)
class JpegEncoding:
    format: ClassVar[Format] = "jpeg"
    quality: int = 85
    progressive: bool = False
    subsampling: Subsampling = "4:2:0"


@dataclass(frozen=True, slots=True)
class WebpEncoding:
    format: ClassVar[Format] = "webp"
    quality: int = 80
    lossless: bool = False
    method: int = 2


Encoding = PngEncoding | JpegEncoding | WebpEncoding


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
    path: str
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
    """One uploaded picture to decode in full, to know that it can be used."""

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
