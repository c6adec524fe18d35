"""Runs inside a worker process: sets its limits, then does one job at a time."""

import multiprocessing
import os
import signal
import threading
import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path

from PIL import Image

from service.imaging.containers.animation import Animation
from service.imaging.containers.container import Container
from service.imaging.decode import decode
from service.imaging.encode import encode
from service.imaging.errors import Fault, ImagingError, TooCostly, Unreadable
from service.imaging.frame import Size
from service.imaging.picture_warnings import picture_warnings
from service.imaging.pipeline import finish, finish_animation
from service.imaging.plan import (
    WHOLE_SHARE,
    CheckJob,
    CheckOutcome,
    ExportJob,
    ExportOutcome,
    ExportPlan,
    ExportWarning,
    InspectJob,
    Job,
    MadeFile,
    Outcome,
    Picture,
    Pixels,
    Rendition,
    WorkerLimits,
)
from service.imaging.probe import check_animation, probe
from service.imaging.provenance import GENERATED, Mark, mark_of_export
from service.imaging.timing import Timing
from service.workers.clock import CpuClock
from service.workers.files import FileMaker, start_disk_thread, write
from service.workers.memory import limit_memory, reuse_memory
from service.workers.times import StepTimes

_limits = WorkerLimits()


def start(limits: WorkerLimits) -> None:
    """Prepare this process for jobs. The initializer of every worker."""
    global _limits
    _limits = limits
    # The parent decides when a worker ends, but Ctrl-C or a closed terminal signals the whole process group.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(10)
    reuse_memory()
    limit_memory(limits.memory_bytes)
    Image.MAX_IMAGE_PIXELS = limits.pixels
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    start_disk_thread()
    threading.Thread(target=_die_with_parent, name="parent-watch", daemon=True).start()


def _die_with_parent() -> None:
    """Exit when the parent process has ended: killed by SIGKILL, it cannot end its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(0)


def run(job: Job) -> Outcome:
    """Do one job. Errors are returned, not raised: an exception that cannot be unpickled would break the executor."""
    try:
        match job:
            case InspectJob():
                return _inspect(job)
            case CheckJob():
                return _check(job)
            case ExportJob():
                return _export(job)
    except ImagingError as refusal:
        return refusal
    except MemoryError:
        return TooCostly("the picture needs more memory than a worker has")
    except Exception as mistake:
        # A bug: errors of a picture are ImagingError.
        fault = Fault(f"the picture cannot be used ({type(mistake).__name__})")
        fault.add_note(traceback.format_exc())
        return fault


def _inspect(job: InspectJob) -> Picture:
    return _picture(_read_container(job.source))


def _check(job: CheckJob) -> CheckOutcome:
    container = _read_container(job.source)
    image = decode(container)
    return CheckOutcome(_picture(container), tuple(_render(wanted, container, image) for wanted in job.renditions))


def _render(wanted: Rendition, container: Container, decoded: Image.Image) -> Pixels | None:
    """Make a rendition, or None: it only saves time, and an export without it decodes the base and reports why."""
    plan = wanted.plan.for_base()
    try:
        size = wanted.size or plan.frame.size(container.upright_size)
        image, warnings = finish(container, plan, size, decoded=decoded)
        data = encode(image, wanted.encoding, plan.matte) if wanted.encoding else image.tobytes()
        write(wanted.target, data, durable=False)
    except Exception:
        return None
    return Pixels(wanted.target, size, warnings, container.mark)


@dataclass(frozen=True, slots=True)
class _Base:
    """A base as the picture is blended with it: opaque, of the size of the exports; `image` None: there is none."""

    image: Image.Image | None = None
    mark: Mark | None = None
    warnings: tuple[ExportWarning, ...] = ()


def _export(job: ExportJob) -> ExportOutcome:
    clock, times = CpuClock(_limits.cpu_seconds), StepTimes()
    with times("decode"):
        container = _read_container(job.source)
    picture = _picture(container)
    size = job.plan.frame.size(container.upright_size)
    remarks = tuple(picture_warnings(container, job.plan, size))
    animation = _animation(container, job.plan, size)
    base = _Base()
    if job.base:
        with times("base"):
            base = _base(job.base, job, size)
    try:
        images, step_warnings = _finish(container, animation, job.plan, size, base.image, times)
    except MemoryError:
        if base.image is None:
            raise
        base = _without_base("both together need more memory than a worker has")
        images, step_warnings = _finish(container, animation, job.plan, size, None, times)
    composited, mark, warnings = base.image is not None, _mark(job.plan, container, base), base.warnings
    timing = animation.timing if animation and len(images) > 1 else None
    # Free memory for the encoders.
    del container, animation, base
    made = FileMaker(images, job.plan, clock, mark, timing, times).make(job.targets)
    files = tuple(file for file in made if isinstance(file, MadeFile))
    failures = tuple(warning for warning in made if isinstance(warning, ExportWarning))
    warnings += (*remarks, *step_warnings, *failures, *_loop_warnings(files, timing))
    steps = tuple(each for each in times.taken() if composited or each.step != "composite")
    return ExportOutcome(picture, size, composited, files, warnings, mark, steps)


def _animation(container: Container, plan: ExportPlan, size: Size) -> Animation | None:
    """The animation of which every frame is exported; raises TooManyPixels.

    One with a fault is not counted: a frame that leaves its canvas may claim any number of pixels, and none is decoded.
    """
    animation = container.animation
    if plan.animate == "first" or animation is None:
        return None
    if container.frames > 1 and not animation.fault:
        sizes = (container.upright_size, size)
        check_animation(animation.cels, sizes, _limits.animation_frames, _limits.animation_pixels)
    return animation


def _finish(
    container: Container,
    animation: Animation | None,
    plan: ExportPlan,
    size: Size,
    base: Image.Image | None,
    times: StepTimes,
) -> tuple[list[Image.Image], tuple[ExportWarning, ...]]:
    """The finished image, or the frames of the animation, and warnings."""
    if animation:
        with times("animate"):
            return finish_animation(container, animation, plan, size, base)
    image, warnings = finish(container, plan, size, base, watch=times)
    return [image], warnings


def _loop_warnings(files: Iterable[MadeFile], timing: Timing | None) -> Iterator[ExportWarning]:
    """AVIF says nothing of how often an animation is played: it is repeated for ever."""
    if timing and timing.plays and any(file.format == "avif" and file.frames > 1 for file in files):
        times = "once" if timing.plays == 1 else f"{timing.plays:,} times"
        detail = f"the animation is played {times}, but as AVIF for ever"
        yield ExportWarning("loop_ignored", detail, "avif")


def _mark(plan: ExportPlan, container: Container, base: _Base) -> Mark | None:
    picture = GENERATED if plan.provenance == "generated" else container.mark
    return mark_of_export(picture, base.mark, blended=base.image is not None and plan.share < WHOLE_SHARE)


def _base(path: str, job: ExportJob, size: Size) -> _Base:
    """The base after the picture's steps; none, and a warning, if it fails and is not required."""
    try:
        base = _prepared(job.prepared, size) or _decoded_base(path, job.plan, size)
    except Exception as fault:
        if job.base_required:
            raise
        return _without_base(_reason(fault))
    return replace(base, warnings=tuple(replace(each, detail=f"base: {each.detail}") for each in base.warnings))


def _prepared(pixels: Pixels | None, size: Size) -> _Base | None:
    """The prepared pixels of a base; None if they have another size or cannot be read, so that it is decoded."""
    if pixels is None or pixels.size != size:
        return None
    try:
        image = Image.frombytes("RGB", size, Path(pixels.path).read_bytes())
    except (OSError, ValueError):
        return None
    return _Base(image, pixels.mark, pixels.warnings)


def _decoded_base(path: str, plan: ExportPlan, size: Size) -> _Base:
    container = _read_container(path)
    image, warnings = finish(container, plan.for_base(), size)
    return _Base(image, container.mark, warnings)


def _reason(fault: Exception) -> str:
    match fault:
        case ImagingError():
            return fault.detail
        case MemoryError():
            return "it needs more memory than a worker has"
    return type(fault).__name__


def _without_base(reason: str) -> _Base:
    warning = ExportWarning("composite_failed", f"the picture is exported without its base: {reason}")
    return _Base(warnings=(warning,))


def _read_container(path: str) -> Container:
    try:
        data = Path(path).read_bytes()
    except OSError as fault:
        raise Unreadable(f"the picture's file cannot be read: {fault.strerror}") from None
    return probe(data, _limits.pixels)


def _picture(container: Container) -> Picture:
    width, height = container.upright_size
    return Picture(width, height, container.format, container.c2pa, container.frames)
