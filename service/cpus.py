"""How many CPUs this process may use: those it may run on, within the CPU quota of its container."""

import contextlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# The hierarchies that may have a quota, by what /proc calls them: all of version 2, and the CPU's of version 1.
_V2, _V1 = "", "cpu"
# The fields of a line of mountinfo: the directory that is mounted, where, as what, with which options.
_MOUNT = re.compile(r"\S+ \S+ \S+ (/\S*) (/\S*) .*?- (\S+) \S+ (\S+)")


def usable_cpus(root: Path = Path("/")) -> int:
    """The CPUs that we may run on, at most the quota of our cgroup and of those above it, rounded up.

    `root` is where /proc and the cgroups are found.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *map(math.ceil, _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """CPUs that each cgroup from ours upwards grants, of those that have a quota."""
    groups = dict(_groups(root))
    for controller, mounted, top in _mounts(root):
        group = groups.get(controller)
        if group is None:
            continue
        # Without a cgroup namespace the mount may show only a part, which begins at our cgroup or above it.
        below = group.relative_to(top) if group.is_relative_to(top) else PurePosixPath()
        for each in (below, *below.parents):
            quota = _quota(mounted / each, controller)
            if quota:
                yield quota


def _groups(root: Path) -> Iterator[tuple[str, PurePosixPath]]:
    """Our cgroup in each of these hierarchies: cgroups(7), /proc/[pid]/cgroup."""
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield _V2, PurePosixPath(path)
        elif _V1 in controllers.split(","):
            yield _V1, PurePosixPath(path)


def _mounts(root: Path) -> Iterator[tuple[str, Path, PurePosixPath]]:
    """Where these hierarchies are mounted, and from which cgroup on: proc(5), /proc/[pid]/mountinfo."""
    for line in _lines(root / "proc/self/mountinfo"):
        match = _MOUNT.match(line)
        if match is None:
            continue
        top, mounted, kind, options = match.groups()
        if kind == "cgroup2":
            yield _V2, root / mounted[1:], PurePosixPath(top)
        elif kind == "cgroup" and _V1 in options.split(","):
            yield _V1, root / mounted[1:], PurePosixPath(top)


def _quota(directory: Path, controller: str) -> float | None:
    """The CPUs that one cgroup grants; None where it has no quota, or none that can be read."""
    if controller == _V2:
        text = " ".join(_lines(directory / "cpu.max"))
    else:
        text = " ".join([*_lines(directory / "cpu.cfs_quota_us"), *_lines(directory / "cpu.cfs_period_us")])
    with contextlib.suppress(ValueError, ZeroDivisionError):
        quota, period = map(int, text.split())
        return quota / period if quota > 0 else None
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
