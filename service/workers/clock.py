"""The CPU time of a job, which the parent limits; here it ends searches early enough."""

import time

# A search may take until this share of the limit, so that the rest is left for its last encode.
SEARCH_SHARE = 0.5
# An encode of a search may take this many times as long as the one in the asked encoding: measured for an indexed PNG,
# up to 2.2.
SEARCH_COST = 3


class CpuClock:
    """The CPU seconds that this process has used since the clock was made, of a limit."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._start = time.process_time()

    def spent(self) -> float:
        return time.process_time() - self._start

    def late(self, cost: float) -> bool:
        """Whether a search must end; in the asked encoding an encode took `cost` seconds."""
        spent = self.spent()
        return spent > SEARCH_SHARE * self._limit or spent + SEARCH_COST * cost > self._limit
