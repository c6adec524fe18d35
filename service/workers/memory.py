"""The memory of a worker process: its limit, its reuse, and whether enough is left to encode AVIF."""

import contextlib
import ctypes
import mmap
import resource

from service.imaging.errors import TooCostly, TooManyPixels
from service.imaging.formats import avif_refusal
from service.imaging.frame import Size

# The fastest speed at which libaom holds frames back to look ahead.
LOOKING_AHEAD = 6

# Parameters of mallopt(3) of glibc.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def limit_memory(memory: int) -> None:
    """Limit the address space, unless there is a stricter limit already."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or memory < hard:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def reuse_memory() -> None:
    """Keep freed memory of up to 32 MiB for the next picture: page faults otherwise cost 4 % of a job.

    Larger blocks still go back to the system. One arena is enough, as the threads here only wait for the disk.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 32 << 20)
        mallopt(_M_ARENA_MAX, 1)


def check_avif(size: Size, speed: int | None = None) -> None:
    """Raise TooManyPixels or TooCostly for a picture that cannot be encoded as AVIF; `speed` is that of an animation.

    libaom crashes where some of its allocations fail, so address space for all of them is mapped and unmapped first.
    """
    if refusal := avif_refusal(size):
        raise TooManyPixels(refusal)
    try:
        mmap.mmap(-1, avif_bytes(size, speed), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ).close()
    except OSError:
        raise TooCostly("the AVIF needs more memory than a worker has") from None


def avif_bytes(size: Size, speed: int | None = None) -> int:
    """The address space that libaom takes for 4:4:4 with alpha, whatever the picture shows; measured with Pillow 13.

    An animation of any length takes that of a few pictures for its references; at speed 6, where frames are also
    predicted from later ones, that of many.
    """
    width, height = size
    fixed, of_pixel = (8, 52) if speed is None else (32, 450 if speed <= LOOKING_AHEAD else 200)
    return (fixed << 20) + of_pixel * (width + 64) * (height + 64)
