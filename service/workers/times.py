"""How long each step of a job takes by the wall clock, for metrics and traces."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.imaging.formats import Format
from service.imaging.plan import StepTime


class StepTimes:
    """Collects the times of a job's steps; a step that is repeated counts as one that took the sum."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, Format | None], StepTime] = {}

    @contextmanager
    def __call__(self, step: str, picture_format: Format | None = None) -> Iterator[None]:
        """Time the code inside as a part of this step."""
        start, clock = time.time(), time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - clock
            before = self._times.get((step, picture_format))
            self._times[step, picture_format] = StepTime(
                step, picture_format, before.start if before else start, seconds + (before.seconds if before else 0)
            )

    def taken(self) -> tuple[StepTime, ...]:
        return tuple(self._times.values())
