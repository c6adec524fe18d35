"""GeminiService: one call, one reply; the only file that imports google.genai."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from google import genai
from google.genai import errors, types

from service.errors import (
    BadReply,
    GeminiFailed,
    GeminiTimeout,
    GeminiUnavailable,
    OutcomeUnknown,
    StorageUnavailable,
)
from service.gemini.queue import CallQueue
from service.gemini.refusals import ErrorStatus, NotExecuted, refusal
from service.gemini.reply import Reply, read_reply
from service.gemini.transport import EXCHANGE, PLACEHOLDER, Exchange, ReplyTooLarge, session

# Google refuses a deadline under 10 s (the SDK sends ours along); shorter ones are kept on our side alone.
MIN_SERVER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Reference:
    """A picture sent along: a file of this machine and its true MIME type. Only calls that are out hold its bytes."""

    path: str
    mime: str

    def encode(self) -> bytes:
        """URL-safe base64 of the file as it is; raises StorageUnavailable. Not for the event loop."""
        try:
            return base64.urlsafe_b64encode(Path(self.path).read_bytes())
        except OSError as error:
            raise StorageUnavailable(f"the reference picture cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Call:
    """What one call asks for; `aspect_ratio` and `image_size` as Gemini spells them (`16:9`, `1K`)."""

    model: str
    prompt: str
    aspect_ratio: str
    image_size: str
    reference: Reference | None = None


@dataclass(frozen=True, slots=True)
class GeminiAccess:
    """Where Gemini is and how long it may take; seconds."""

    api_key: str = field(repr=False)
    base_url: str | None = None
    api_version: str | None = None
    timeout: float = 180
    retry: float = 30
    concurrency: int = 64
    max_reply_bytes: int = 96 * 1024 * 1024


class Flight:
    """What the owner of a call hears of it, and whether it is still wanted; this one only waits.

    Until `sent` a call can be cancelled and costs nothing.
    """

    @property
    def wanted(self) -> bool:
        """Whether a call that Gemini refused may be sent again."""
        return True

    async def prepare(self) -> None:
        """The call has a slot and is about to go out; what this raises prevents it."""

    def sent(self) -> None:
        """The call goes out now: from here on it may cost money."""

    async def refused(self) -> None:
        """Gemini surely did nothing with the call."""


class GeminiService:
    """Makes calls under one service-wide limit; sends again only what Gemini surely did nothing with.

    `up` tells of a stand-in whether it runs; of Gemini itself nothing is known before a call.
    """

    def __init__(self, client: genai.Client, access: GeminiAccess, up: Callable[[], bool]) -> None:
        self.up = up
        self._client = client
        self._access = access
        self._queue = CallQueue(access.concurrency, access.retry)

    async def draw(self, call: Call, flight: Flight | None = None) -> Reply:
        """One picture. Raises GeminiError, its `billed` saying what is known of the cost."""
        flight = flight or Flight()
        with self._queue.join(call.model) as queued:

            def sent() -> None:
                flight.sent()
                self._queue.sent(queued)

            while True:
                try:
                    async with self._queue.slot(queued):
                        await flight.prepare()
                        return await self._once(call, sent)
                except NotExecuted as refused:
                    over = queued.hopeless
                    await flight.refused()
                    if over or not flight.wanted:
                        raise refused.error from None

    async def _once(self, call: Call, sent: Callable[[], None]) -> Reply:
        reference = await asyncio.to_thread(call.reference.encode) if call.reference else b""
        exchange = Exchange(self._access.max_reply_bytes, reference, sent=sent)
        EXCHANGE.set(exchange)
        try:
            with _translated():
                async with asyncio.timeout(self._access.timeout):
                    await self._client.aio.models.generate_content(
                        model=call.model, contents=_contents(call), config=_config(call)
                    )
            return await asyncio.to_thread(read_reply, exchange.reply)
        finally:
            # The context lives on, in the caller's task and in timers of the connection.
            exchange.reference, exchange.reply, exchange.sent = b"", bytearray(), _unheard


def _unheard() -> None:
    pass


def _contents(call: Call) -> types.Content:
    parts = [types.Part.from_text(text=call.prompt)]
    if call.reference:
        parts.append(types.Part.from_bytes(data=PLACEHOLDER, mime_type=call.reference.mime))
    return types.Content(role="user", parts=parts)


def _config(call: Call) -> types.GenerateContentConfig:
    """The raw response is asked for: its body was put aside, and the SDK's own parsing loses finishMessage."""
    return types.GenerateContentConfig(
        response_modalities=["IMAGE"],
        image_config=types.ImageConfig(aspect_ratio=call.aspect_ratio, image_size=call.image_size),
        automatic_continuation=False,
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        should_return_http_response=True,
    )


@contextlib.contextmanager
def _translated() -> Any:
    """The SDK's many ways to fail, as ours."""
    try:
        yield
    except ErrorStatus as error:
        raise refusal(error) from error
    except errors.APIError as error:
        raise BadReply(f"Gemini answered {error.code}", billed=None) from error
    except json.JSONDecodeError as error:
        raise GeminiFailed("Gemini answered an error that cannot be read") from error
    except TimeoutError as error:
        raise GeminiTimeout("Gemini did not answer in time; the call may have been billed", billed=None) from error
    except aiohttp.ClientConnectorError as error:
        raise NotExecuted(GeminiUnavailable("Gemini cannot be reached")) from error
    except (aiohttp.ClientError, OSError) as error:
        raise OutcomeUnknown("the connection to Gemini broke; the call may have been billed", billed=None) from error
    except ReplyTooLarge as error:
        raise BadReply(f"Gemini's reply is larger than {error} (GEMINI_MAX_REPLY_BYTES)", billed=None) from error
    except ValueError as error:
        raise BadReply("Gemini's reply cannot be read", billed=None) from error


@contextlib.asynccontextmanager
async def open_gemini(access: GeminiAccess, up: Callable[[], bool] = lambda: True) -> AsyncIterator[GeminiService]:
    """A GeminiService with a connection pool of its own, closed at the end."""
    async with session() as own:
        client = await asyncio.to_thread(_client, access, own)
        yield GeminiService(client, access, up)


def _client(access: GeminiAccess, own: aiohttp.ClientSession) -> genai.Client:
    return genai.Client(
        api_key=access.api_key,
        vertexai=False,
        http_options=types.HttpOptions(
            base_url=access.base_url or "https://generativelanguage.googleapis.com/",
            api_version=access.api_version,
            timeout=round(1000 * max(access.timeout, MIN_SERVER_SECONDS)),
            aiohttp_client=own,
            # The SDK would otherwise send a dropped call again, and pay twice.
            retry_options=types.HttpRetryOptions(attempts=1),
        ),
    )
