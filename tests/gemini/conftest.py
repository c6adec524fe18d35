"""Clients for emulators, with the real SDK."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from service.emulator.app import Emulator
from service.gemini import backoff
from service.gemini.call import Call
from service.gemini.client import GeminiAccess, GeminiService, open_gemini
from service.server.connections import listening
from tests.helpers import KEY

CALL = Call("gemini-nano-banana-2.1", "a prompt", "1:8", "1K")

Connect = Callable[..., Awaitable[GeminiService]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens a client for an emulator: `await connect(QuickEmulator(…), retry=2, …)`."""
    async with AsyncExitStack() as stack:

        async def connected(emulator: Emulator, **options: Any) -> GeminiService:
            [(host, port)] = await stack.enter_async_context(listening(emulator.create_app(), "127.0.0.1", 0))
            access = GeminiAccess(**{"api_key": KEY, "base_url": f"http://{host}:{port}", **options})
            return await stack.enter_async_context(open_gemini(access))

        yield connected


@pytest.fixture
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten pauses and intervals to a tenth."""
    for name in ("FIRST_PAUSE_SECONDS", "PROBE_SECONDS", "FIRST_INTERVAL_SECONDS"):
        monkeypatch.setattr(backoff, name, getattr(backoff, name) / 10)
