"""The number of CPUs that this process may use, by its CPU affinity and the CPU quota of its cgroups (v1 and v2)."""

import contextlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# The cgroup hierarchies that may have a CPU quota, by their names in /proc: that of v2, and v1's cpu controller.
_V2, _V1 = "", "cpu"
# Fields of a line of mountinfo: root within the file system, mount point, file system type, its options.
_MOUNT = re.compile(r"\S+ \S+ \S+ (/\S*) (/\S*) .*? - (\S+) \S+ (\S+)")


def usable_cpus(root: Path = Path("/")) -> int:
    """The number of CPUs in our affinity mask, at most the quota of our cgroup and its ancestors, rounded up.

    `root` is the directory that has /proc and /sys, for tests.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *map(math.ceil, _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """The quota, in CPUs, of our cgroup and each of its ancestors that has one."""
    groups = dict(_groups(root))
    for controller, mounted, top in _mounts(root):
        group = groups.get(controller)
        if group is None:
            continue
        # In a container without a cgroup namespace the mount shows only a part, whose root is our cgroup or above it.
        below = group.relative_to(top) if group.is_relative_to(top) else PurePosixPath()
        for each in (below, *below.parents):
            quota = _quota(mounted / each, controller)
            if quota:
                yield quota


def _groups(root: Path) -> Iterator[tuple[str, PurePosixPath]]:
    """The hierarchies and our cgroup in each: /proc/[pid]/cgroup, see cgroups(7)."""
    for line in _read_lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield _V2, PurePosixPath(path)
        elif _V1 in controllers.split(","):
            yield _V1, PurePosixPath(path)


def _mounts(root: Path) -> Iterator[tuple[str, Path, PurePosixPath]]:
    """The hierarchies, their mount points, and the cgroup at each: /proc/[pid]/mountinfo, see proc(5)."""
    for line in _read_lines(root / "proc/self/mountinfo"):
        match = _MOUNT.match(line)
        if match is None:
            continue
        top, mounted, kind, options = match.groups()
        if kind == "cgroup2":
            yield _V2, root / mounted[1:], PurePosixPath(top)
        elif kind == "cgroup" and _V1 in options.split(","):
            yield _V1, root / mounted[1:], PurePosixPath(top)


def _quota(directory: Path, controller: str) -> float | None:
    """The quota of one cgroup in CPUs; None if it has none, or none that can be read."""
    if controller == _V2:
        text = " ".join(_read_lines(directory / "cpu.max"))
    else:
        text = " ".join([*_read_lines(directory / "cpu.cfs_quota_us"), *_read_lines(directory / "cpu.cfs_period_us")])
    with contextlib.suppress(ValueError, ZeroDivisionError):
        quota, period = map(int, text.split())
        return quota / period if quota > 0 else None
    return None


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
