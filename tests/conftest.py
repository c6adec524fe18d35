"""Fixtures: the service on a real socket, with the real SDK calling an emulator on another, and real workers."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest
import pytest_asyncio
from blockbuster import BlockBuster, blockbuster_ctx
from pydantic import AliasChoices

from service.emulator.app import Emulator
from service.settings import Settings
from tests.helpers import KEY, QuickEmulator, Running, running

MakeSettings = Callable[..., Settings]
Serve = Callable[..., Awaitable[Running]]

COLLECTED = pytest.StashKey[list[pytest.Item]]()

_PROXIES = [f"{scheme}_proxy" for scheme in ("http", "https", "all", "no")]
_NOT_SETTINGS = (
    "GOOGLE_GENAI_USE_VERTEXAI",
    "EMULATOR_DELAY_SECONDS",
    "EMULATOR_FAULTS",
    *_PROXIES,
    *map(str.upper, _PROXIES),
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep for tests/test_suite.py what was collected, before `-m` leaves some of it out."""
    config.stash[COLLECTED] = list(items)


def _variables() -> Iterator[str]:
    """Every variable of the environment that could reach a test."""
    yield from _NOT_SETTINGS
    for name, info in Settings.model_fields.items():
        yield name.upper()
        if isinstance(info.validation_alias, AliasChoices):
            yield from (str(choice) for choice in info.validation_alias.choices)


@pytest.fixture(scope="session", autouse=True)
def _clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # Each process that may speak TLS loads all certificates of the machine: 0.1 s of CPU. One is enough for tests.
    certificate = tmp_path_factory.mktemp("tls") / "one.pem"
    certificate.write_text(certifi.contents().partition("\n\n")[0])
    with pytest.MonkeyPatch.context() as patch:
        for variable in _variables():
            patch.delenv(variable, raising=False)
        patch.setenv("SSL_CERT_FILE", str(certificate))
        yield


@pytest.fixture(scope="session", autouse=True)
def _signals_are_heard() -> None:
    """A shell that runs the tests in the background, or `nohup`, ignores signals, and so would all processes here."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def settings_in(folder: Path, **overrides: Any) -> Settings:
    """Settings with storage below `folder`, one worker and a key; any of them can be overridden."""
    defaults: dict[str, Any] = {
        "storage_dir": folder / "storage",
        "export_workers": 1,
        "gemini_api_key": KEY,
        "gemini_retry_seconds": 5,
    }
    return Settings(**defaults | overrides)


@pytest.fixture
def make_settings(tmp_path: Path) -> MakeSettings:
    return lambda **overrides: settings_in(tmp_path, **overrides)


@pytest.fixture
def unblocked() -> Iterator[BlockBuster]:
    """Fails whatever blocks the event loop from within the service."""
    with blockbuster_ctx("service") as detector:
        # A lost worker's semaphores are given up by a few bytes down a pipe that is always read.
        detector.functions["os.write"].can_block_in("multiprocessing/resource_tracker.py", {"_check_alive", "_send"})
        yield detector


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def _default_service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    settings = settings_in(tmp_path_factory.mktemp("default"))
    async with running(settings, QuickEmulator()) as service:
        yield service


@pytest.fixture
def service(_default_service: Running, unblocked: BlockBuster) -> Running:
    """The service with default settings, shared by the whole run: a test must leave it as it was."""
    return _default_service


@pytest_asyncio.fixture(loop_scope="session")
async def serve(make_settings: MakeSettings, unblocked: BlockBuster) -> AsyncIterator[Serve]:
    """Starts a service of the test's own: `await serve(QuickEmulator(...), sign_urls=True, …)`."""
    async with contextlib.AsyncExitStack() as stack:

        async def started(emulator: Emulator | None = None, **overrides: Any) -> Running:
            settings = await asyncio.to_thread(make_settings, **overrides)
            return await stack.enter_async_context(running(settings, emulator or QuickEmulator()))

        yield started


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def serve_all(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serve]:
    """As `serve`, but shared by all tests of a file, which must leave the service as it was."""
    async with contextlib.AsyncExitStack() as stack:

        async def started(emulator: Emulator | None = None, **overrides: Any) -> Running:
            settings = await asyncio.to_thread(settings_in, tmp_path_factory.mktemp("shared"), **overrides)
            return await stack.enter_async_context(running(settings, emulator or QuickEmulator()))

        yield started
