"""The CPU time of a job, which the parent limits; in the worker it ends searches early enough."""

import time

# Searches end at this share of the limit: what is left is enough for one encode that is no slower than the job so far.
SEARCH_SHARE = 0.5


class CpuClock:
    """The CPU seconds that this process has used since the clock was made, of a limit."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._start = time.process_time()

    def spent(self) -> float:
        return time.process_time() - self._start

    def late(self, cost: float) -> bool:
        """Whether a search must end, whose next encode may take `cost` seconds."""
        spent = self.spent()
        return spent > SEARCH_SHARE * self._limit or spent + cost > self._limit
