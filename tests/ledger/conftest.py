"""Each test of the ledger runs on SQLite and on PostgreSQL."""

import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import pytest

from service.ledger.ledger import Ledger, LedgerAccess, open_ledger
from service.ledger.steps import Rules
from tests.ledger import postgres

_schemas = itertools.count()

HOUR = 3600 * 1_000_000
DAY = 24 * HOUR


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    if not postgres.available():
        pytest.skip("PostgreSQL is not installed")
    with tempfile.TemporaryDirectory(prefix="ledger-") as directory, postgres.server(Path(directory)) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def access(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerAccess:
    """A new, empty ledger."""
    rules = Rules(key_lifetime=DAY, budget=None)
    directory = tmp_path / "ledger"
    if request.param == "sqlite":
        return LedgerAccess(directory, rules)
    psycopg = pytest.importorskip("psycopg")
    url: str = request.getfixturevalue("postgres_url")
    schema = f"ledger_{os.getpid()}_{next(_schemas)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    return LedgerAccess(directory, rules, f"{url}?options={quote(f'-csearch_path={schema}')}")


@dataclass
class Clock:
    """The time in microseconds, set by hand."""

    now: int = 1_800_000_000_000_000

    def __call__(self) -> int:
        self.now += 1
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


Open = Callable[..., Awaitable[Ledger]]


@pytest.fixture
async def another(access: LedgerAccess, clock: Clock) -> AsyncIterator[Open]:
    """Opens the same ledger as one more owner; its `budget` may differ."""
    async with AsyncExitStack() as stack:

        async def opened(budget: int | None = None) -> Ledger:
            own = replace(access, rules=replace(access.rules, budget=budget))
            ledger = await stack.enter_async_context(open_ledger(own))
            ledger._clock = clock
            return ledger

        yield opened


@pytest.fixture
async def ledger(another: Open) -> Ledger:
    return await another()
