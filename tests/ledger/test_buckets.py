"""Token buckets: never more requests than the rate allows, over all processes that share a ledger."""

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest

from service.callers import Rate
from service.errors import StorageUnavailable
from service.ledger import buckets
from service.ledger.buckets import SECOND, Buckets, Level, take
from service.ledger.ledger import LedgerAccess
from tests.ledger.conftest import Clock

MINUTELY = Rate(60, 60)
Share = Callable[[], Buckets]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no database that cannot be used."""
    monkeypatch.setattr(buckets, "TIMEOUT_SECONDS", 30)


@pytest.fixture
async def share(access: LedgerAccess, clock: Clock) -> AsyncIterator[Share]:
    """Opens the same buckets as one more process."""
    async with AsyncExitStack() as stack:

        def opened() -> Buckets:
            mine = Buckets(access.connect_buckets, clock)
            stack.push_async_callback(mine.close)
            return mine

        yield opened


def given(levels: list[Level]) -> int:
    return sum(level.granted for level in levels)


# One bucket


def test_a_bucket_holds_as_many_tokens_as_the_rate_says() -> None:
    full_at, granted = 0, 0
    while (level := take(MINUTELY, full_at, 10**15)).granted:
        full_at, granted = level.full_at, granted + 1
        assert level.remaining == 60 - granted
    assert granted == 60
    assert (level.remaining, level.seconds_to_next) == (0, 1)


@pytest.mark.parametrize("rate", [Rate(1, 1), Rate(7, 1), Rate(7, 60), Rate(60, 60), Rate(1000, 3600), Rate(10**6, 1)])
def test_in_no_window_are_more_given_than_the_bucket_and_what_was_refilled(rate: Rate) -> None:
    full_at, times = 0, []
    for number in range(4 * min(rate.count, 500)):
        now = 10**15 + number * rate.seconds * SECOND // rate.count // 3
        level = take(rate, full_at, now)
        full_at = level.full_at
        if level.granted:
            times.append(now)
    some = list(enumerate(times))[:: max(1, len(times) // 50)]
    for (before, first), (upto, last) in itertools.combinations(some, 2):
        refilled = (last - first) * rate.count / (rate.seconds * SECOND)
        assert upto - before + 1 <= rate.count + refilled + 1e-6


def test_a_token_comes_back_when_it_was_said() -> None:
    rate, now = Rate(2, 3600), 10**15
    first = take(rate, 0, now)
    second = take(rate, first.full_at, now)
    refused = take(rate, second.full_at, now)
    assert [first.granted, second.granted, refused.granted] == [True, True, False]
    wait = refused.seconds_to_next
    assert wait == 1800
    assert not take(rate, refused.full_at, now + (wait - 1) * SECOND).granted
    assert take(rate, refused.full_at, now + wait * SECOND).granted


def test_a_clock_that_was_set_back_does_not_stop_a_caller() -> None:
    full_at = take(MINUTELY, 0, 10**15).full_at
    level = take(MINUTELY, full_at, 10**15 - 24 * 3600 * SECOND)
    assert (level.granted, level.remaining) == (True, 0)


def test_a_rate_that_was_changed_holds_from_the_next_request() -> None:
    hourly = take(Rate(1, 3600), 0, 10**15)
    assert take(Rate(10, 1), hourly.full_at, 10**15).granted
    assert take(Rate(1000, 3600), hourly.full_at, 10**15 + 4 * SECOND).granted


# Shared


async def test_a_hundred_racing_requests_get_no_more_than_the_bucket_of_all_processes(share: Share) -> None:
    both = share(), share()
    levels = await asyncio.gather(*(both[n % 2].take("name:app", Rate(37, 3600)) for n in range(100)))
    assert given(levels) == 37
    assert sorted(level.remaining for level in levels if level.granted) == list(range(37))
    others = await asyncio.gather(*(both[n % 2].take(f"name:{n}", Rate(1, 3600)) for n in range(20)))
    assert given(others) == 20


async def test_what_one_process_gave_another_knows(share: Share, clock: Clock) -> None:
    one, other = share(), share()
    for process in (one, other, one):
        assert (await process.take("name:app", Rate(3, 60))).granted
    for process in (other, one, share()):
        refused = await process.take("name:app", Rate(3, 60))
        assert (refused.granted, refused.seconds_to_next) == (False, 20)
    clock.now += 21 * SECOND
    assert [(await process.take("name:app", Rate(3, 60))).granted for process in (one, other)] == [True, False]


async def test_a_bucket_that_is_known_to_be_empty_is_not_read_again(
    share: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = share()
    assert (await own.take("name:app", Rate(1, 3600))).granted
    assert not (await own.take("name:app", Rate(1, 3600))).granted
    monkeypatch.setattr(own, "_take", None)
    assert not (await own.take("name:app", Rate(1, 3600))).granted


async def test_without_the_database_each_process_counts_for_itself_and_refuses_nobody_for_that(
    access: LedgerAccess, clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Any:
        raise StorageUnavailable("the ledger cannot be used: Busy")

    monkeypatch.setattr(buckets, "RETRY_SECONDS", 0)
    own = Buckets(refuse, clock)
    async with aclosing(_Closing(own)):
        assert given([await own.take("name:app", Rate(3, 60)) for _ in range(5)]) == 3
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "by each process for itself: the ledger cannot be used" in caplog.text
        own._connect = access.connect_buckets
        clock.now += 60 * SECOND
        assert given([await own.take("name:app", Rate(3, 60)) for _ in range(5)]) == 3
        assert "counted together again" in caplog.text


class _Closing:
    def __init__(self, own: Buckets) -> None:
        self.aclose = own.close


@pytest.mark.parametrize("access", ["sqlite"], indirect=True)
async def test_a_locked_database_delays_requests_but_refuses_none(
    share: Share, access: LedgerAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = share()
    assert (await own.take("name:app", Rate(10, 3600))).remaining == 9
    monkeypatch.setattr(buckets, "TIMEOUT_SECONDS", 0.05)
    other = sqlite3.connect(access.directory / "rates.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        levels = await asyncio.gather(*(own.take("name:app", Rate(10, 3600)) for _ in range(20)))
        assert given(levels) == 9
    finally:
        other.execute("ROLLBACK")
        other.close()


async def test_full_buckets_are_removed_when_the_next_process_opens_them(share: Share, access: LedgerAccess) -> None:
    rates = {"old": Rate(1000, 1), "new": Rate(1, 3600)}

    async def names() -> list[str]:
        database = await asyncio.to_thread(access.connect_buckets)
        rows = database.run("SELECT principal FROM buckets ORDER BY principal")
        database.close()
        return [name for (name,) in rows]

    own = Buckets(access.connect_buckets)
    for name, rate in rates.items():
        await own.take(name, rate)
    await own.close()
    async with asyncio.timeout(20):
        while await names() != ["new"]:
            await asyncio.sleep(0.01)


async def test_no_more_is_remembered_than_there_may_be_keys(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "MAX_KNOWN", 10)
    own = Buckets(share()._connect)
    async with aclosing(_Closing(own)):
        for number in range(40):
            await own.take(f"name:{number}", Rate(100_000, 1))
        assert len(own._full_at) < 20


async def test_a_bucket_that_others_always_change_first_is_given_up(
    share: Share, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(buckets, "MAX_SWAPS", 0)
    assert (await share().take("a", MINUTELY)).granted
    assert "other processes were faster" in caplog.text
