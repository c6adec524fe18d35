"""Two services that share a storage directory and a ledger, which is on SQLite or on PostgreSQL."""

from collections.abc import Awaitable, Callable

import pytest

from service.emulator.app import Emulator
from service.ledger.ledger import LedgerAccess
from tests.conftest import Serve
from tests.helpers import Running
from tests.ledger.conftest import access, postgres_url

__all__ = ["access", "postgres_url"]

ServeTwo = Callable[[Emulator], Awaitable[tuple[Running, Running]]]


@pytest.fixture
def serve_two(serve: Serve, access: LedgerAccess) -> ServeTwo:  # the fixture, not the import
    """Starts both, calling the same emulator."""

    async def started(emulator: Emulator) -> tuple[Running, Running]:
        shared = {"database_url": access.url or None, "gemini_concurrency": 4}
        one = await serve(emulator, **shared)
        return one, await serve(gemini_base_url=one.settings.gemini_base_url, **shared)

    return started
