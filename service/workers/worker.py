"""Runs inside a worker process: sets its limits, then does one job at a time."""

import contextlib
import errno
import hashlib
import multiprocessing
import os
import signal
import threading
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path

from PIL import Image

from service.imaging.containers.container import Container
from service.imaging.decode import decode
from service.imaging.encode import encode
from service.imaging.errors import Fault, ImagingError, TooCostly, Unreadable
from service.imaging.formats import TABLE, AvifEncoding, Encoding, Format, quality_of
from service.imaging.frame import Size
from service.imaging.picture_warnings import picture_warnings
from service.imaging.pipeline import finish
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
from service.imaging.probe import probe
from service.imaging.provenance import GENERATED, Mark, mark_of_export
from service.workers.memory import check_avif, limit_memory, reuse_memory

_FULL = (errno.ENOSPC, errno.EDQUOT)
_limits = WorkerLimits()
_disk = ThreadPoolExecutor(1, "disk")


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
    _disk.submit(int)  # starts its thread before memory is short
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
    plan = replace(wanted.plan, alpha="flatten")
    try:
        size = wanted.size or plan.frame.size(container.upright_size)
        image, warnings = finish(container, plan, size, decoded=decoded)
        data = encode(image, wanted.encoding, plan.matte) if wanted.encoding else image.tobytes()
        _write(wanted.target, data, durable=False)
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
    container = _read_container(job.source)
    picture = _picture(container)
    size = job.plan.frame.size(container.upright_size)
    remarks = tuple(picture_warnings(container, job.plan, size))
    base = _base(job.base, job, size) if job.base else _Base()
    try:
        image, step_warnings = finish(container, job.plan, size, base.image)
    except MemoryError:
        if base.image is None:
            raise
        base = _without_base("both together need more memory than a worker has")
        image, step_warnings = finish(container, job.plan, size)
    composited, mark, warnings = base.image is not None, _mark(job.plan, container, base), base.warnings
    # Free memory for the encoders.
    del container, base
    # Each file is written in a thread while the next one is encoded.
    saving = [
        _disk.submit(_save, _encode(image, job.plan, encoding, mark), encoding, image.size, target)
        for encoding, target in job.targets
    ]
    made = [save.result() for save in saving]
    files = tuple(file for file in made if isinstance(file, MadeFile))
    failures = tuple(warning for warning in made if isinstance(warning, ExportWarning))
    return ExportOutcome(picture, size, composited, files, warnings + remarks + step_warnings + failures, mark)


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
    image, warnings = finish(container, replace(plan, alpha="flatten"), size)
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


def _encode(image: Image.Image, plan: ExportPlan, encoding: Encoding, mark: Mark | None) -> bytes | ExportWarning:
    try:
        if isinstance(encoding, AvifEncoding):
            check_avif(image.size)
        return encode(image, encoding, plan.matte, mark)
    except ImagingError as refusal:
        return ExportWarning("encode_failed", refusal.detail, encoding.format)
    except Exception as fault:
        return _encode_failed(encoding.format, "encoded", fault)


def _save(data: bytes | ExportWarning, encoding: Encoding, pixels: Size, target: str) -> MadeFile | ExportWarning:
    name = encoding.format
    if isinstance(data, ExportWarning):
        return data
    try:
        _write(target, data)
    except OSError as fault:
        if fault.errno in _FULL:
            return ExportWarning("storage_full", f"the storage has no space for the {TABLE[name].label}", name)
        return _encode_failed(name, "written", fault)
    return MadeFile(name, len(data), hashlib.sha256(data).hexdigest(), pixels, quality_of(encoding))


def _encode_failed(name: Format, done: str, fault: Exception) -> ExportWarning:
    return ExportWarning("encode_failed", f"the {TABLE[name].label} could not be {done} ({type(fault).__name__})", name)


def _write(target: str, data: bytes, *, durable: bool = True) -> None:
    """Write to the file that the parent created and locked; after an error it is empty."""
    descriptor = os.open(target, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW)
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


def _read_container(path: str) -> Container:
    try:
        data = Path(path).read_bytes()
    except OSError as fault:
        raise Unreadable(f"the picture's file cannot be read: {fault.strerror}") from None
    return probe(data, _limits.pixels)


def _picture(container: Container) -> Picture:
    width, height = container.upright_size
    return Picture(width, height, container.format, container.c2pa)
