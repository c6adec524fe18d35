"""Makes the files of a finished image: encodes each format within its byte budget, and writes the files in a thread."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import chain

from PIL import Image

from service.imaging.animated import encode_animation
from service.imaging.budget import Fitted, fitted
from service.imaging.encode import encode
from service.imaging.errors import ImagingError
from service.imaging.formats import TABLE, AvifEncoding, Encoding, Format, JpegEncoding, PngEncoding
from service.imaging.plan import Budget, ExportPlan, ExportWarning, MadeFile
from service.imaging.provenance import Mark
from service.imaging.timing import Timing
from service.workers.clock import CpuClock
from service.workers.memory import check_avif
from service.workers.times import StepTimes

Made = MadeFile | ExportWarning

_FULL = (errno.ENOSPC, errno.EDQUOT)
# An indexed PNG takes up to this many times the CPU time of a truecolour one, at the levels that take long.
_PALETTE_COST = 5
_disk = ThreadPoolExecutor(1, "disk")


def start_disk_thread() -> None:
    """Start the thread that writes files, before memory is short."""
    _disk.submit(int)


@dataclass(frozen=True, slots=True)
class OverAsAsked:
    """A file that exceeds its budget in the asked encoding: it has `size` bytes, and took `seconds` of CPU time."""

    encoding: Encoding
    budget: Budget
    size: int
    seconds: float


class FileMaker:
    """Encodes one image, or the frames of an animation, by a plan and with a mark.

    The clock ends the searches for files within their budgets; an animation has none.
    """

    def __init__(
        self,
        images: Sequence[Image.Image],
        plan: ExportPlan,
        clock: CpuClock,
        mark: Mark | None = None,
        timing: Timing | None = None,
        times: StepTimes | None = None,
    ) -> None:
        self._images = images
        self._plan = plan
        self._clock = clock
        self._mark = mark
        self._timing = timing
        self._times = times or StepTimes()

    @property
    def _image(self) -> Image.Image:
        return self._images[0]

    def make(self, targets: Sequence[tuple[Encoding, str]]) -> list[Made]:
        """Encode in every format, and write each file to its path while the next one is encoded.

        Searches come last: after every format has been encoded as asked, they cannot make the job too costly.
        """
        saving: dict[str, Future[list[Made]]] = {}
        searches: list[tuple[str, OverAsAsked]] = []
        for encoding, path in targets:
            with self._times("encode", encoding.format):
                asked = self.asked(encoding)
            if isinstance(asked, OverAsAsked):
                searches.append((path, asked))
            else:
                saving[path] = _disk.submit(self._save, asked, encoding.format, path)
        for path, over in searches:
            with self._times("encode", over.encoding.format):
                found = self._search(over)
            saving[path] = _disk.submit(self._save, found, over.encoding.format, path)
        return list(chain.from_iterable(saving[path].result() for _, path in targets))

    def asked(self, encoding: Encoding) -> Fitted | OverAsAsked | ExportWarning:
        """The file in the asked encoding; a JPEG of an animation is its first frame."""
        if self._timing and not isinstance(encoding, JpegEncoding):
            return self._animation(encoding, self._timing)
        budget, start = self._plan.budgets.of(encoding.format), self._clock.spent()
        try:
            data = self._encode(self._image, encoding)
        except Exception as fault:
            return _encode_failed(encoding.format, fault)
        if budget and len(data) > budget.bytes:
            return OverAsAsked(encoding, budget, len(data), self._clock.spent() - start)
        return Fitted(data, self._image.size, encoding)

    def _animation(self, encoding: Encoding, timing: Timing) -> Fitted | ExportWarning:
        try:
            if isinstance(encoding, AvifEncoding):
                check_avif(self._image.size, encoding.speed)
            data = encode_animation(self._images, timing, encoding, self._plan.matte, self._mark)
            return Fitted(data, self._image.size, encoding, frames=_frames(data, encoding.format))
        except Exception as fault:
            return _encode_failed(encoding.format, fault)

    def _search(self, over: OverAsAsked) -> Fitted | ExportWarning:
        """The best file within the budget."""
        encoding, budget = over.encoding, over.budget
        cost = over.seconds * (_PALETTE_COST if isinstance(encoding, PngEncoding) else 1)
        try:
            found = fitted(self._image, encoding, over.size, budget, self._encode, lambda: self._clock.late(cost))
        except Exception as fault:
            return _encode_failed(encoding.format, fault)
        if isinstance(found, Fitted):
            return found
        detail = f"takes at least {found.least} bytes; {budget.bytes} are allowed"
        return ExportWarning("over_budget", f"the {TABLE[encoding.format].pillow} {detail}", encoding.format)

    def _save(self, made: Fitted | ExportWarning, name: Format, path: str) -> list[Made]:
        with self._times("write", name):
            return _save(made, name, path)

    def _encode(self, image: Image.Image, encoding: Encoding) -> bytes:
        if isinstance(encoding, AvifEncoding):
            check_avif(image.size)
        return encode(image, encoding, self._plan.matte, self._mark)


def _frames(data: bytes, name: Format) -> int:
    """How many frames the file has: encoders may merge equal ones."""
    if reader := TABLE[name].reader:
        return reader.read(data).frames
    with Image.open(BytesIO(data), formats=[TABLE[name].pillow]) as image:
        return getattr(image, "n_frames", 1)


def _save(made: Fitted | ExportWarning, name: Format, path: str) -> list[Made]:
    if isinstance(made, ExportWarning):
        return [made]
    try:
        write(path, made.data)
    except OSError as fault:
        return [_write_failed(name, fault)]
    digest = hashlib.sha256(made.data).hexdigest()
    file = MadeFile(name, len(made.data), digest, made.pixels, made.quality, made.colors, made.frames)
    return [file] if made.fault is None else [file, _search_failed(name, made.fault)]


def _encode_failed(name: Format, fault: Exception) -> ExportWarning:
    if isinstance(fault, ImagingError):
        return ExportWarning("encode_failed", fault.detail, name)
    return ExportWarning(
        "encode_failed", f"the {TABLE[name].label} could not be encoded ({type(fault).__name__})", name
    )


def _search_failed(name: Format, fault: Exception) -> ExportWarning:
    """The file is within its budget, but a better one might be."""
    detail = f"the {TABLE[name].label} may be further below its budget than need be"
    return ExportWarning("encode_failed", f"{detail}: an encode failed ({type(fault).__name__})", name)


def _write_failed(name: Format, fault: OSError) -> ExportWarning:
    if fault.errno in _FULL:
        return ExportWarning("storage_full", f"the storage has no space for the {TABLE[name].label}", name)
    return ExportWarning(
        "encode_failed", f"the {TABLE[name].label} could not be written ({type(fault).__name__})", name
    )


def write(path: str, data: bytes, *, durable: bool = True) -> None:
    """Write to the file that the parent created and locked; after an error it is empty."""
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        if durable:
            os.fsync(descriptor)
    except OSError:
        # Report the first error.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
        raise
    finally:
        os.close(descriptor)
