"""Fixtures of the handlers' tests: the studio page in a real browser."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.handlers.browser import Tab, Visit, opened
from tests.helpers import Running


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def _browser(_default_service: Running, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tab]:
    async with opened(f"{_default_service.url}/", tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest.fixture
def visit(_browser: Tab) -> Visit:
    """Loads the studio page of a service in a browser that all tests share."""

    async def visited(service: Running) -> Tab:
        await _browser.run("window.previous = true")
        await _browser.send("Page.navigate", url=f"{service.url}/")
        await _browser.wait_for("!window.previous && document.querySelector('#count')?.value")
        return _browser

    return visited


@pytest_asyncio.fixture(loop_scope="session")
async def tab(visit: Visit, service: Running) -> Tab:
    """The studio page of the default service."""
    return await visit(service)
