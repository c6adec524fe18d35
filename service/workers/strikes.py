"""What killed its workers lately."""

from collections import OrderedDict
from collections.abc import Callable

POISON_DEATHS = 3
POISON_SECONDS = 15 * 60
POISON_REMEMBERED = 1_000


class Strikes:
    """How often an input has killed its worker lately; at most POISON_REMEMBERED inputs."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def add(self, digest: str) -> None:
        self._seen[digest] = (self._count(digest) + 1, self._now())
        self._seen.move_to_end(digest)
        if len(self._seen) > POISON_REMEMBERED:
            self._seen.popitem(last=False)

    def poison(self, digest: str) -> bool:
        return self._count(digest) >= POISON_DEATHS

    def _count(self, digest: str) -> int:
        count, since = self._seen.get(digest, (0, 0.0))
        return count if self._now() - since < POISON_SECONDS else 0
