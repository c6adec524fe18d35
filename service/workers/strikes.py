"""Poison inputs: those that killed several workers recently."""

from collections import OrderedDict
from collections.abc import Callable

POISON_DEATHS = 3
POISON_SECONDS = 15 * 60
# How many inputs are remembered; beyond that, the one whose last strike is oldest is forgotten.
POISON_REMEMBERED = 1_000


class Strikes:
    """Counts how often each input, named by its digest, has killed its worker in the last POISON_SECONDS."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._strikes: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def add(self, digest: str) -> None:
        self._strikes[digest] = (self._count(digest) + 1, self._now())
        self._strikes.move_to_end(digest)
        if len(self._strikes) > POISON_REMEMBERED:
            self._strikes.popitem(last=False)

    def is_poison(self, digest: str) -> bool:
        return self._count(digest) >= POISON_DEATHS

    def _count(self, digest: str) -> int:
        count, last = self._strikes.get(digest, (0, 0.0))
        return count if self._now() - last < POISON_SECONDS else 0
