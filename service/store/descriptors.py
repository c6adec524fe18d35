"""File descriptors: how many are free, and how many each leaves to those who can be refused less.

They run out for everybody at once: an idle connection could take the one that a paid picture needs. So whoever can be
closed, refused or made to wait stops earlier, and what was begun always finds some.
"""

import os
import resource
from functools import lru_cache

# How many must be free, of 256 or more, for:
CACHE = 96  # a file that is kept open for its next download
CONNECT = 80  # a connection, without an idle one being closed for it
BEGIN = 64  # a download, an upload, a call to Gemini: what is refused in time
ACCEPT = 32  # any connection, which is then told that there are too few
FINISH = 16  # the exports of what was begun, which wait; the rest is for workers that must be started again

# A process with fewer shares in proportion.
_ENOUGH = 256


def limit() -> int:
    """The soft limit, which may be changed from outside at any time."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 30


def free() -> int:
    """How many may still be opened; less than none where the limit was lowered under what is open."""
    try:
        listing = _listing(os.getpid())
        # Linux 6.2 counts them in the directory's size; before, they have to be listed.
        return limit() - (os.fstat(listing).st_size or len(os.listdir(listing)))
    except FileNotFoundError:  # no /proc: nobody can tell before it fails
        return limit()
    except OSError:
        return 0


def spare(leave: int) -> int:
    """How many may be opened so that `leave` (see above) are left; less than none if there are fewer."""
    return free() - min(leave, leave * limit() // _ENOUGH)


def shortage() -> str:
    """What there is, in words."""
    return f"{max(0, free())} of {limit()} file descriptors are free"


@lru_cache(maxsize=1)
def _listing(process: int) -> int:
    return os.open(f"/proc/{process}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
