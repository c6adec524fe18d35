import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from google import genai
from google.genai import types

from service.emulator.app import Emulator
from tests.emulator.helpers import KEY, Connect, Serve

# Emulators use plain HTTP. Without this, the SDK loads all certificates of the system three times per client.
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.fixture
async def connect(aiohttp_server: Serve) -> AsyncIterator[Connect]:
    """Serve an emulator on a real socket, and return the SDK's client for it."""
    async with aiohttp.ClientSession() as session:

        async def connected(emulator: Emulator, **options: Any) -> genai.Client:
            server = await aiohttp_server(emulator.create_app())
            http_options = types.HttpOptions(
                base_url=str(server.make_url("")),
                aiohttp_client=session,
                client_args={"verify": NO_CERTIFICATES},
                async_client_args={"ssl": NO_CERTIFICATES},
                retry_options=types.HttpRetryOptions(attempts=1),
                **{"timeout": 30_000, **options},
            )
            return genai.Client(api_key=KEY, vertexai=False, http_options=http_options)

        yield connected
