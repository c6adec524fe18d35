"""Opens the Gemini client, for Google's API or, depending on the settings, for an emulator that it starts first."""

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from service.emulator.process import EmulatorProcess
from service.settings import MIB, Settings

if TYPE_CHECKING:
    # Imports aiohttp and the SDK, which are slow to load: done only where Gemini is called.
    from service.gemini.client import GeminiAccess, GeminiService

EMULATOR_START_SECONDS = 30.0


@contextlib.asynccontextmanager
async def gemini_service(settings: Settings) -> AsyncIterator["GeminiService"]:
    """A client of Gemini or of the emulator; raises SettingsError without a key."""
    from service.gemini.client import open_gemini

    settings.check(draws=True)
    if settings.emulates:
        async with (
            EmulatorProcess(EMULATOR_START_SECONDS).opened() as emulator,
            open_gemini(_access(settings, emulator.base_url), lambda: emulator.up) as client,
        ):
            yield client
    else:
        async with open_gemini(_access(settings, settings.gemini_base_url)) as client:
            yield client


def _access(settings: Settings, base_url: str | None) -> "GeminiAccess":
    from service.gemini.client import GeminiAccess

    key = settings.gemini_api_key
    return GeminiAccess(
        api_key="emulator" if settings.emulates or key is None else key.get_secret_value(),
        base_url=base_url,
        local=settings.emulates,
        api_version=settings.gemini_api_version,
        timeout=settings.gemini_timeout_seconds,
        retry=settings.gemini_retry_seconds,
        concurrency=settings.gemini_concurrency,
        max_reply_bytes=settings.gemini_max_reply_bytes,
        replies_memory=settings.gemini_replies_memory_mb * MIB,
    )
