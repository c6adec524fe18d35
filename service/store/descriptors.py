"""File descriptors: how many are free, and the reserve that each kind of use leaves to more important ones.

The limit is one for the whole process: an idle connection could take the descriptor that a paid picture needs. So uses
that can be closed, refused or delayed stop early, and work in progress always finds free descriptors.
"""

import os
import resource
from functools import lru_cache

# How many must stay free, with a limit of at least _FULL_LIMIT, after:
CACHE = 96  # keeping a file open for its next download
CONNECT = 80  # accepting a connection without closing an idle one
BEGIN = 64  # beginning a download, an upload or a call to Gemini, which is refused otherwise
ACCEPT = 32  # accepting any connection, which is then answered that descriptors are short
FINISH = 16  # exporting what was begun, which waits otherwise; the rest is for restarting workers

# With a lower limit the reserves are smaller in proportion.
_FULL_LIMIT = 256


def limit() -> int:
    """The soft limit, which another process may change at any time."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 30


def free() -> int:
    """How many may still be opened; negative if the limit was lowered below what is open."""
    try:
        listing = _listing(os.getpid())
        # Since Linux 6.2 the directory's size is their number; before, they have to be listed.
        return limit() - (os.fstat(listing).st_size or len(os.listdir(listing)))
    except FileNotFoundError:  # no /proc: unknown, until opening one fails
        return limit()
    except OSError:
        return 0


def spare(leave: int) -> int:
    """How many may be opened with the reserve `leave` (see above) still free; negative if that is short already."""
    return free() - min(leave, leave * limit() // _FULL_LIMIT)


def shortage() -> str:
    """The free descriptors and the limit, as part of an error message."""
    return f"{max(0, free())} of {limit()} file descriptors are free"


@lru_cache(maxsize=1)
def _listing(process: int) -> int:
    return os.open(f"/proc/{process}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
