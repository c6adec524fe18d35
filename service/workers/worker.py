"""What runs in a worker process: the limits it lives under, and one job at a time."""

import contextlib
import ctypes
import errno
import hashlib
import multiprocessing
import os
import resource
import signal
import socket
import threading
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import cast

from PIL import Image

from service.imaging.containers import Container, look_into
from service.imaging.decode import decode
from service.imaging.encode import encode
from service.imaging.errors import Fault, ImagingError, TooCostly, Undecodable
from service.imaging.formats import Format
from service.imaging.pipeline import finish
from service.imaging.plan import (
    Encoding,
    ExportJob,
    ExportOutcome,
    ExportPlan,
    ExportWarning,
    InspectJob,
    Job,
    MadeFile,
    Outcome,
    Picture,
    Size,
    WorkerLimits,
)
from service.workers import messages

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8

READY = b"!"

_limits = WorkerLimits()
_disk = ThreadPoolExecutor(1, "disk")


def serve(link: socket.socket, limits: WorkerLimits) -> None:
    """The life of a worker: it says that it is ready, then answers each job by its outcome, until the link ends."""
    start(limits)
    with link, link.makefile("rb") as jobs:
        link.sendall(READY)
        while job := messages.read(jobs):
            link.sendall(messages.framed(run(cast("Job", messages.unpickled(job)))))


def start(limits: WorkerLimits) -> None:
    """Prepare this process for jobs."""
    global _limits
    _limits = limits
    # The parent decides when a worker ends; a Ctrl-C at the terminal reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(10)
    _reuse_memory()
    _limit_memory(limits.memory_bytes)
    Image.MAX_IMAGE_PIXELS = limits.pixels
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    _disk.submit(int)  # starts its thread while there is memory
    threading.Thread(target=_die_with_parent, name="parent-watch", daemon=True).start()


def _limit_memory(memory: int) -> None:
    """Bound the address space, which the machine may have bounded more tightly already."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or memory < hard:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _reuse_memory() -> None:
    """Keep the memory of a usual picture for the next one: getting its pages anew takes 4 % of a job.

    What is larger goes back to the system as before. One arena is enough: threads here only wait for the disk.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 32 << 20)
        mallopt(_M_ARENA_MAX, 1)


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
    except Exception as mistake:
        # No step should: what is wrong with a picture was told above.
        fault = Fault(f"the picture cannot be used ({type(mistake).__name__})")
        fault.add_note(traceback.format_exc())
        return fault


def _inspect(job: InspectJob) -> Picture:
    container = _look(job.source)
    decode(container)
    return _picture(container)


def _export(job: ExportJob) -> ExportOutcome:
    container = _look(job.source)
    picture = _picture(container)
    size = job.plan.frame.size(container.upright_size)
    base, base_back = _base(job.base, job.plan, size) if job.base else (None, ())
    try:
        image, picture_back = finish(container, job.plan, size, base)
    except MemoryError:
        if base is None:
            raise
        base, base_back = None, (_alone("both together need more memory than a worker has"),)
        image, picture_back = finish(container, job.plan, size)
    composited = base is not None
    # The encoders need room, and these can be large.
    del container, base
    # While one goes to the disk the next is encoded.
    saving = [
        _disk.submit(_saved, _encoded(image, job.plan, encoding), encoding.format, target)
        for encoding, target in job.targets
    ]
    made = [save.result() for save in saving]
    files = tuple(file for file in made if isinstance(file, MadeFile))
    encode_back = tuple(back for back in made if isinstance(back, ExportWarning))
    return ExportOutcome(picture, size, composited, files, base_back + picture_back + encode_back)


def _base(path: str, plan: ExportPlan, size: Size) -> tuple[Image.Image | None, tuple[ExportWarning, ...]]:
    """The base as the picture's steps leave it, always opaque; None and why not if it cannot be used."""
    try:
        base, warnings = finish(_look(path), replace(plan, alpha="flatten"), size)
    except ImagingError as refusal:
        reason = refusal.detail
    except MemoryError:
        reason = "it needs more memory than a worker has"
    except Exception as fault:
        reason = type(fault).__name__
    else:
        return base, tuple(replace(back, detail=f"base: {back.detail}") for back in warnings)
    return None, (_alone(reason),)


def _alone(reason: str) -> ExportWarning:
    return ExportWarning("composite_failed", f"the picture is exported without its base: {reason}")


def _encoded(image: Image.Image, plan: ExportPlan, encoding: Encoding) -> bytes | ExportWarning:
    try:
        return encode(image, encoding, plan.matte)
    except Exception as fault:
        return _failed(encoding.format, "encoded", fault)


def _saved(data: bytes | ExportWarning, name: Format, target: str) -> MadeFile | ExportWarning:
    if isinstance(data, ExportWarning):
        return data
    try:
        _write(target, data)
    except OSError as fault:
        if fault.errno in _FULL:
            return ExportWarning("storage_full", f"the storage has no room for the {name.upper()}", name)
        return _failed(name, "written", fault)
    return MadeFile(name, target, len(data), hashlib.sha256(data).hexdigest())


def _failed(name: Format, done: str, fault: Exception) -> ExportWarning:
    return ExportWarning("encode_failed", f"the {name.upper()} could not be {done} ({type(fault).__name__})", name)


def _write(target: str, data: bytes) -> None:
    """Fill the file that the parent made and locked, durably; after a fault it is empty."""
    descriptor = os.open(target, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError:
        # The first fault is the one to tell.
        with contextlib.suppress(OSError):
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
