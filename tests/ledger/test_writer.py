"""Group commit: what waits together is one transaction, and one step that fails spares the others."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.errors import ServiceError, StorageFull, StorageUnavailable
from service.ledger import statements
from service.ledger.database import Database, connect
from service.ledger.ledger import LedgerAccess
from service.ledger.writer import MAX_GROUP, Writer


@pytest.fixture
async def commits() -> list[float | None]:
    return []


@pytest.fixture
async def writer(access: LedgerAccess, commits: list[float | None]) -> AsyncIterator[Writer]:
    writer = Writer(lambda: connect(access.url, access.directory), commits.append)
    await writer.start()
    yield writer
    await writer.close()


def insert(day: str) -> Any:
    return lambda database: database.run(statements.OPEN_DAY, {"day": day, "principal": ""})


def count(database: Database) -> int:
    return int(database.run("SELECT count(*) FROM days")[0][0])


class Blocker:
    """Holds the writer's thread, so that what comes meanwhile waits together."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def __call__(self, database: Database) -> None:
        self.go_on.wait(20)


async def test_steps_that_wait_together_are_one_commit(writer: Writer, commits: list[float | None]) -> None:
    blocker = Blocker()
    blocked = asyncio.create_task(writer.run(blocker))
    steps = [asyncio.create_task(writer.run(insert(f"day-{n}"))) for n in range(100)]
    await asyncio.sleep(0)
    blocker.go_on.set()
    await asyncio.gather(blocked, *steps)
    assert await writer.run(count) == 100
    assert len(commits) <= 3


async def test_a_group_has_a_limit(writer: Writer, commits: list[float | None]) -> None:
    blocker = Blocker()
    blocked = asyncio.create_task(writer.run(blocker))
    steps = [asyncio.create_task(writer.run(insert(f"day-{n}"))) for n in range(2 * MAX_GROUP)]
    await asyncio.sleep(0)
    blocker.go_on.set()
    await asyncio.gather(blocked, *steps)
    assert len(commits) >= 3


async def test_a_step_that_fails_leaves_nothing_and_spares_its_neighbours(writer: Writer) -> None:
    def half(database: Database) -> None:
        insert("half")(database)
        raise LookupError("in the middle")

    steps = (insert("a"), half, insert("b"))
    results: list[Any] = await asyncio.gather(*map(writer.run, steps), return_exceptions=True)
    assert [isinstance(result, LookupError) for result in results] == [False, True, False]
    assert await writer.run(count) == 2


async def test_a_step_with_wrong_sql_spares_its_neighbours(writer: Writer) -> None:
    steps = (insert("a"), lambda database: database.run("INSERT INTO days (day) VALUES (NULL)"), insert("b"))
    results: list[Any] = await asyncio.gather(*map(writer.run, steps), return_exceptions=True)
    assert [isinstance(result, Exception) for result in results] == [False, True, False]
    assert await writer.run(count) == 2


async def test_no_step_of_a_refused_commit_returns(
    writer: Writer, commits: list[float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(database: Database) -> None:
        insert("lost")(database)
        raise StorageFull("no space is left for the ledger")

    results = await asyncio.gather(writer.run(insert("a")), writer.run(full), return_exceptions=True)
    assert isinstance(results[1], StorageFull)
    assert commits[-1] is None or isinstance(results[0], list)
    await writer.run(insert("after"))
    assert commits[-1] is not None


async def test_a_step_whose_caller_left_before_it_began_is_not_made(writer: Writer) -> None:
    blocker = Blocker()
    blocked = asyncio.create_task(writer.run(blocker))
    left = asyncio.create_task(writer.run(insert("left")))
    await asyncio.sleep(0)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    blocker.go_on.set()
    await blocked
    assert await writer.run(count) == 0


async def test_waiting_steps_are_committed_before_the_end(access: LedgerAccess) -> None:
    writer = Writer(lambda: connect(access.url, access.directory))
    await writer.start()
    steps = [asyncio.create_task(writer.run(insert(f"day-{n}"))) for n in range(20)]
    await asyncio.sleep(0)
    await writer.close()
    await asyncio.gather(*steps)
    with pytest.raises(StorageUnavailable):
        await writer.run(count)
    await writer.close()
    again = Writer(lambda: connect(access.url, access.directory))
    await again.start()
    assert await again.run(count) == 20
    await again.close()


async def test_a_lost_connection_is_made_again(writer: Writer, access: LedgerAccess) -> None:
    if not access.url:
        pytest.skip("SQLite has no connection to lose")
    await writer.run(insert("before"))
    # A session can end itself, as a restart of the server would.
    with pytest.raises(ServiceError):
        await writer.run(lambda database: database.run("SELECT pg_terminate_backend(pg_backend_pid())"))
    await writer.run(insert("after"))
    assert await writer.run(count) == 2


async def test_after_a_refused_commit_only_a_probe_of_its_size_counts_as_recovered(writer: Writer) -> None:
    def full(database: Database) -> None:
        raise StorageFull("no space is left for the ledger")

    with pytest.raises(StorageFull):
        await writer.run(full)
    await writer.run(count)
    assert writer.refused == 1
    await writer.probe()
    assert writer.refused == 0
