"""A ledger that another process reads or locks: bounded waits, the right error, and a loop that goes on."""

import asyncio
import contextlib
from collections.abc import Iterator

import apsw
import pytest

from service.ledger import sqlite
from service.ledger.database import NAME
from service.ledger.ledger import LedgerAccess
from tests.conftest import Serve
from tests.handlers.test_idempotency import JPEG
from tests.helpers import Running, assert_problem

pytestmark = pytest.mark.asyncio(loop_scope="session")


@contextlib.contextmanager
def held(service: Running, access: LedgerAccess, *, write: bool) -> Iterator[None]:
    """Another connection in the middle of a transaction."""
    if access.url:
        psycopg = pytest.importorskip("psycopg")
        with psycopg.connect(access.url) as connection:
            mode = "ACCESS EXCLUSIVE" if write else "ACCESS SHARE"
            connection.execute(f"LOCK TABLE requests, calls, events, days, probes IN {mode} MODE")
            yield
        return
    connection = apsw.Connection(str(service.settings.ledger_directory / NAME))
    connection.set_busy_timeout(5000)  # milliseconds: the service that has just started may be writing
    connection.execute("BEGIN IMMEDIATE" if write else "BEGIN; SELECT count(*) FROM calls")
    try:
        yield
    finally:
        connection.close()


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_MILLISECONDS", 200)
    postgres = pytest.importorskip("service.ledger.postgres")
    monkeypatch.setattr(postgres, "LOCK_MILLISECONDS", 200)


async def test_a_long_reader_is_not_noticed(serve: Serve, access: LedgerAccess) -> None:
    service = await serve(database_url=access.url or None)
    with held(service, access, write=False):
        assert (await service.thumbnails(JPEG)).status == 200


@pytest.mark.usefixtures("short_waits")
async def test_a_locked_ledger_is_503_after_a_bounded_wait(serve: Serve, access: LedgerAccess) -> None:
    service = await serve(database_url=access.url or None)
    with held(service, access, write=True), service.nothing_spent_or_left():
        request = asyncio.create_task(service.thumbnails(JPEG))
        assert (await service.get("/healthz")).status == 200
        assert_problem(await request, 503, "storage_unavailable")
        assert_problem(await service.get("/api/thumbnails"), 503, "storage_unavailable")
        assert_problem(await service.get("/readyz"), 503, "not_ready", "ledger")
    assert (await service.thumbnails(JPEG)).status == 200
    assert (await service.get("/readyz")).status == 200
