"""Token buckets of callers with a rate, which all processes of one ledger share.

Whether a bucket is full needs not survive a crash, so it is written without a sync, over a connection of its own: a
request waits neither for the ledger's commits nor for its locks. Only tokens that are given are written, so there are
no more writes than the rate allows.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from service.callers import Rate
from service.errors import ServiceError, SettingsError, StorageUnavailable
from service.ledger import statements
from service.ledger.database import Database
from service.ledger.rows import microseconds

log = logging.getLogger(__name__)

SECOND = 1_000_000
# A bucket that is full again later than this after its period was filled by a clock that has been set back since.
CLOCK_SKEW = 60 * SECOND
# How long a request waits for the database, and for how long it is not asked again after it failed.
TIMEOUT_SECONDS = 2.0
RETRY_SECONDS = 5.0
# Attempts to take a token from a bucket that other processes change at the same time.
MAX_SWAPS = 1_000
# Buckets that this process remembers; if there are more, it forgets those that are full.
MAX_KNOWN = 20_000


@dataclass(frozen=True, slots=True)
class Level:
    """A bucket after a request, which got a token if it was `granted`.

    `full_at` is when the bucket is full again, which says how many tokens it has: the generic cell rate algorithm.
    Times are microseconds.
    """

    rate: Rate
    full_at: int
    now: int
    granted: bool

    @property
    def remaining(self) -> int:
        """The tokens that are left."""
        return max(0, self._spare // _interval(self.rate))

    @property
    def seconds_to_next(self) -> int:
        """Whole seconds until there is one token more, at least 1."""
        return max(1, -(-((self.remaining + 1) * _interval(self.rate) - self._spare) // SECOND))

    @property
    def _spare(self) -> int:
        return self.now + _period(self.rate) - self.full_at


def _interval(rate: Rate) -> int:
    """Microseconds from one token to the next, rounded up: never more tokens than the rate says."""
    return -(-rate.seconds * SECOND // rate.count)


def _period(rate: Rate) -> int:
    return rate.count * _interval(rate)


def take(rate: Rate, full_at: int, now: int) -> Level:
    """Take a token from a bucket that is full at `full_at`, if it has one."""
    interval, period = _interval(rate), _period(rate)
    if full_at > now + period + CLOCK_SKEW:
        full_at = now + period - interval
    taken = max(full_at, now) + interval
    return Level(rate, taken, now, granted=True) if taken <= now + period else Level(rate, full_at, now, granted=False)


class Buckets:
    """The buckets that all processes share; while their database cannot be used, this process counts by itself."""

    def __init__(self, connect: Callable[[], Database], clock: Callable[[], int] = microseconds) -> None:
        """`connect` opens the database that is shared; it is called with the first request that has a rate."""
        self._connect = connect
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "buckets")
        self._database: Database | None = None
        # When each bucket is full again, as far as this process knows: not before that.
        self._full_at: dict[str, int] = {}
        self._retry_at = 0.0
        self._alone = False

    async def take(self, principal: str, rate: Rate) -> Level:
        """Take a token from the bucket of a principal, if it has one."""
        level = self._level(principal, rate)
        if level.granted and time.monotonic() >= self._retry_at:
            level = await self._shared(principal, rate) or self._level(principal, rate)
        self._remember(principal, level)
        return level

    def _remember(self, principal: str, level: Level) -> None:
        if len(self._full_at) >= MAX_KNOWN:
            self._full_at = {name: full_at for name, full_at in self._full_at.items() if full_at > level.now}
        self._full_at[principal] = level.full_at

    def _level(self, principal: str, rate: Rate) -> Level:
        """A request by what this process knows of the bucket."""
        return take(rate, self._full_at.get(principal, 0), self._clock())

    async def _shared(self, principal: str, rate: Rate) -> Level | None:
        """A request by the database; None if it cannot be used, or not in time."""
        taking = asyncio.get_running_loop().run_in_executor(self._thread, self._take, principal, rate)
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                level = await taking
        except (ServiceError, SettingsError, TimeoutError) as error:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            self._now_alone(True, str(error) or "the database is too slow")
            return None
        self._now_alone(False, "the database can be used")
        return level

    def _now_alone(self, alone: bool, reason: str) -> None:
        if alone != self._alone:
            self._alone = alone
            log.warning("rates are counted %s: %s", "by each process for itself" if alone else "together again", reason)

    def _take(self, principal: str, rate: Rate) -> Level:
        """In the thread: compare and swap, again while another process was faster; raises StorageUnavailable."""
        if self._database is None or not self._database.alive():
            self._database = self._connect()
        for _ in range(MAX_SWAPS):
            rows = self._database.run(statements.READ_BUCKET, {"principal": principal})
            was = rows[0][0] if rows else 0
            level = take(rate, was, self._clock())
            swap = {"principal": principal, "was": was, "full_at": level.full_at}
            if not level.granted or self._database.run(statements.SWAP_BUCKET, swap):
                return level
        raise StorageUnavailable(f"other processes were faster {MAX_SWAPS} times")

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        if self._database:
            self._database.close()
