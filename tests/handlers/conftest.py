"""Fixtures of the handlers' tests: the studio page in a real browser."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.handlers.browser import Tab, opened
from tests.helpers import Running


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def _browser(_default_service: Running, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tab]:
    async with opened(f"{_default_service.url}/", tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest_asyncio.fixture(loop_scope="session")
async def tab(_browser: Tab, service: Running) -> Tab:
    """The studio page of the default service, reloaded in a browser that all tests share."""
    await _browser.run("window.previous = true")
    await _browser.send("Page.navigate", url=f"{service.url}/")
    await _browser.wait_for("!window.previous && document.querySelector('#count')?.value")
    return _browser
