"""What runs in a worker process: the limits it lives under, and one job at a time."""

import errno
import hashlib
import multiprocessing
import os
import resource
import signal
import threading
import warnings
from multiprocessing.connection import wait
from pathlib import Path

from PIL import Image

from service.imaging.containers import Container, look_into
from service.imaging.decode import decode
from service.imaging.encode import encode
from service.imaging.errors import ImagingError, TooCostly, Undecodable
from service.imaging.formats import Format
from service.imaging.pipeline import finish, finish_base
from service.imaging.plan import (
    Encoding,
    ExportJob,
    ExportOutcome,
    ExportPlan,
    InspectJob,
    Job,
    MadeFile,
    Outcome,
    Picture,
    Size,
    StepBack,
    WorkerLimits,
)

_FULL = (errno.ENOSPC, errno.EDQUOT)

_limits = WorkerLimits()


def start(limits: WorkerLimits) -> None:
    """Prepare this process for jobs: the initializer of every worker."""
    global _limits
    _limits = limits
    # The parent decides when a worker ends; a Ctrl-C at the terminal reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    Image.MAX_IMAGE_PIXELS = limits.pixels
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    threading.Thread(target=_die_with_parent, name="parent-watch", daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(0)


def run(job: Job) -> Outcome:
    """Do one job; whatever goes wrong is in the outcome, because an exception could break the pool."""
    try:
        return _inspect(job) if isinstance(job, InspectJob) else _export(job)
    except ImagingError as refusal:
        return refusal
    except MemoryError:
        return TooCostly("the picture needs more memory than a worker has")
    except Exception as fault:
        return Undecodable(f"the picture cannot be used ({type(fault).__name__})")


def _inspect(job: InspectJob) -> Picture:
    container = _look(job.source)
    decode(container)
    return _picture(container)


def _export(job: ExportJob) -> ExportOutcome:
    container = _look(job.source)
    picture = _picture(container)
    size = job.plan.frame.size(container.upright_size)
    steps_back: list[StepBack] = []
    base = _base(job.base, job.plan, size, steps_back) if job.base else None
    image = finish(container, job.plan, size, base)
    composited = base is not None
    del container, base
    files = [_made(image, job.plan, encoding, target, steps_back) for encoding, target in job.targets]
    return ExportOutcome(picture, size, composited, tuple(file for file in files if file), tuple(steps_back))


def _base(path: str, plan: ExportPlan, size: Size, steps_back: list[StepBack]) -> Image.Image | None:
    try:
        return finish_base(_look(path), plan, size)
    except ImagingError as refusal:
        detail = refusal.detail
    except MemoryError:
        detail = "it needs more memory than a worker has"
    except Exception as fault:
        detail = type(fault).__name__
    steps_back.append(StepBack("composite_failed", f"the picture stands alone, without its base: {detail}"))
    return None


def _made(
    image: Image.Image, plan: ExportPlan, encoding: Encoding, target: str, steps_back: list[StepBack]
) -> MadeFile | None:
    name: Format = encoding.format
    try:
        data = encode(image, encoding, plan.matte)
    except Exception as fault:
        steps_back.append(StepBack("encode_failed", f"no {name.upper()} could be made ({type(fault).__name__})", name))
        return None
    try:
        _write(target, data)
    except OSError as fault:
        code = "storage_full" if fault.errno in _FULL else "encode_failed"
        reason = "the storage is full" if fault.errno in _FULL else "it could not be written"
        steps_back.append(StepBack(code, f"no {name.upper()}: {reason}", name))
        return None
    return MadeFile(name, target, len(data), hashlib.sha256(data).hexdigest())


def _write(target: str, data: bytes) -> None:
    """Fill the file that the parent made and locked, durably; after a fault it is empty."""
    descriptor = os.open(target, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, 0)
        raise
    finally:
        os.close(descriptor)


def _look(path: str) -> Container:
    try:
        data = Path(path).read_bytes()
    except OSError:
        raise Undecodable("the picture's file cannot be read") from None
    return look_into(data, _limits.pixels)


def _picture(container: Container) -> Picture:
    width, height = container.upright_size
    return Picture(width, height, container.format)
