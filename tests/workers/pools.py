"""Pools of real workers that record their events, and the list of worker processes."""

from pathlib import Path

from service.imaging.plan import WorkerLimits
from service.workers.forkserver import forkserver_pid
from service.workers.pool import WorkerPool


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Pools:
    """Makes pools and records their events."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.clock = Clock()
        self.made: list[WorkerPool] = []

    def __call__(self, workers: int = 1, deadline: float = 60) -> WorkerPool:
        pool = WorkerPool(workers, WorkerLimits(cpu_seconds=deadline), report=self.events.append, now=self.clock)
        self.made.append(pool)
        return pool


def workers() -> set[int]:
    """The living children of the fork server."""
    parent = str(forkserver_pid())
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, its_parent = stat.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if its_parent == parent and state != "Z":
            found.add(int(stat.parent.name))
    return found
