"""A ledger that another process reads or locks: bounded waits, the right error, and a loop that goes on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import apsw
import pytest

from service.ledger import sqlite
from service.ledger.database import NAME
from service.ledger.ledger import LedgerAccess
from tests.conftest import Serve
from tests.handlers.test_idempotency import JPEG
from tests.helpers import Running, assert_problem

pytestmark = pytest.mark.asyncio(loop_scope="session")


@contextlib.asynccontextmanager
async def held(service: Running, access: LedgerAccess, *, write: bool) -> AsyncIterator[None]:
    """Another connection in the middle of a transaction."""
    if access.url:
        psycopg = pytest.importorskip("psycopg")
        with psycopg.connect(access.url) as connection:
            mode = "ACCESS EXCLUSIVE" if write else "ACCESS SHARE"
            connection.execute(f"LOCK TABLE requests, calls, events, days, probes IN {mode} MODE")
            yield
        return
    connection = apsw.Connection(str(service.settings.ledger_directory / NAME))
    try:
        await _begin(connection, "BEGIN IMMEDIATE" if write else "BEGIN; SELECT count(*) FROM calls")
        yield
    finally:
        connection.close()


async def _begin(connection: apsw.Connection, statements: str) -> None:
    """Begin a transaction, after those that a service which has just started makes."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(apsw.BusyError):
                connection.execute(statements)
                return
            await asyncio.sleep(0.01)


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_MILLISECONDS", 200)
    postgres = pytest.importorskip("service.ledger.postgres")
    monkeypatch.setattr(postgres, "LOCK_MILLISECONDS", 200)


async def test_a_long_reader_is_not_noticed(serve: Serve, access: LedgerAccess) -> None:
    service = await serve(database_url=access.url or None)
    async with held(service, access, write=False):
        assert (await service.thumbnails(JPEG)).status == 200


@pytest.mark.usefixtures("short_waits")
async def test_a_locked_ledger_is_503_after_a_bounded_wait(serve: Serve, access: LedgerAccess) -> None:
    service = await serve(database_url=access.url or None)
    async with held(service, access, write=True):
        with service.nothing_spent_or_left():
            request = asyncio.create_task(service.thumbnails(JPEG))
            assert (await service.get("/healthz")).status == 200
            assert_problem(await request, 503, "storage_unavailable")
            assert_problem(await service.get("/api/thumbnails"), 503, "storage_unavailable")
            assert_problem(await service.get("/readyz"), 503, "not_ready", "ledger")
    assert (await service.thumbnails(JPEG)).status == 200
    assert (await service.get("/readyz")).status == 200
