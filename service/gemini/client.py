"""GeminiService: calls Gemini through google-genai, with retries. No other file imports google.genai."""

import asyncio
import contextlib
import functools
import json
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import aiohttp
import certifi
from google import genai
from google.genai import errors, types

from service.errors import (
    BadReply,
    GeminiError,
    GeminiFailed,
    GeminiRejected,
    GeminiTimeout,
    GeminiUnavailable,
    OutcomeUnknown,
)
from service.gemini.body import ReplyBody, ReplyMemory, return_large_buffers
from service.gemini.call import Call, CallHooks
from service.gemini.proxy import proxy_for
from service.gemini.queue import CallQueue
from service.gemini.refusals import ErrorStatus, NotExecuted, refusal
from service.gemini.reply import Reply
from service.gemini.transport import (
    EXCHANGE,
    PLACEHOLDER,
    Exchange,
    ProxyRefused,
    ReplyTooLarge,
    UnexpectedStatus,
    session,
)
from service.spans import span

GOOGLE = "https://generativelanguage.googleapis.com/"
# Google rejects a shorter deadline, which the SDK sends as X-Server-Timeout; we enforce shorter ones ourselves.
MIN_SERVER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class GeminiAccess:
    """Address, key and limits of Gemini, in seconds and bytes.

    `local`: the emulator of this service, which is called without a proxy and whose key is not a secret.
    """

    api_key: str = field(repr=False)
    base_url: str | None = None
    local: bool = False
    api_version: str | None = None
    timeout: float = 180
    retry: float = 30
    concurrency: int = 64
    max_reply_bytes: int = 96 * 1024 * 1024
    replies_memory: int = 256 * 1024 * 1024

    @property
    def secret(self) -> str:
        """The key to remove from quoted text."""
        return "" if self.local else self.api_key


class GeminiService:
    """Makes calls, at most `concurrency` at a time, and retries those that Gemini did not execute.

    `up` says whether the emulator runs; for Gemini itself it is always true.
    """

    def __init__(self, client: genai.Client, access: GeminiAccess, up: Callable[[], bool]) -> None:
        self.up = up
        self._client = client
        self._access = access
        self._queue = CallQueue(access.concurrency, access.retry)
        self._memory = ReplyMemory(access.replies_memory)

    def reply_body(self) -> ReplyBody:
        """A body for the reply to one call, to be closed."""
        return ReplyBody(self._memory)

    async def generate_image(self, call: Call, hooks: CallHooks | None = None) -> Reply:
        """Get one picture. Raises GeminiError, whose `billed` says whether the call was billed."""
        hooks = hooks or CallHooks()
        with self._queue.join(call.model) as queued:

            def sent() -> None:
                hooks.sent()
                self._queue.sent(queued)

            while True:
                try:
                    async with self._queue.slot(queued):
                        await hooks.prepare()
                        return await self._attempt(call, sent)
                except NotExecuted as refused:
                    over = queued.out_of_budget
                    await hooks.refused()
                    if over:
                        raise self._queue.error(queued, refused) from None

    async def _attempt(self, call: Call, sent: Callable[[], None]) -> Reply:
        reference = await asyncio.to_thread(call.reference.encode) if call.reference else b""
        body = call.body or ReplyBody(ReplyMemory(self._access.max_reply_bytes))
        body.clear()
        exchange = Exchange(body, self._access.max_reply_bytes, reference, self._access.secret, sent=sent)
        EXCHANGE.set(exchange)
        try:
            with (
                span("gemini.generate_content", "CLIENT", **{"gen_ai.request.model": call.model}),
                _translated(exchange),
            ):
                async with asyncio.timeout(self._access.timeout):
                    await self._client.aio.models.generate_content(
                        model=call.model, contents=_contents(call), config=_config(call)
                    )
        finally:
            # The context outlives the call, in the caller's task and in timers of the connection.
            exchange.reference, exchange.sent = b"", _ignore
        return await body.read(self._access.secret)


def _ignore() -> None:
    pass


class _NoKeys:
    """Answers `name in model`, which the SDK asks for each of 50 fields: pydantic would iterate over all of them."""

    def __contains__(self, name: object) -> bool:
        return False


class _Part(_NoKeys, types.Part):
    pass


class _Config(_NoKeys, types.GenerateContentConfig):
    pass


def _contents(call: Call) -> types.Content:
    parts: list[types.Part] = [_Part(text=call.prompt)]
    if call.reference:
        parts.append(types.Part.from_bytes(data=PLACEHOLDER, mime_type=call.reference.mime))
    return types.Content(role="user", parts=parts)


def _config(call: Call) -> types.GenerateContentConfig:
    """Asks for the raw response: its body is in the exchange, and the SDK's own parser drops finishMessage."""
    return _Config(
        response_modalities=["IMAGE"],
        image_config=types.ImageConfig(aspect_ratio=call.aspect_ratio, image_size=call.image_size),
        automatic_continuation=False,
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        should_return_http_response=True,
    )


@contextlib.contextmanager
def _translated(exchange: Exchange) -> Iterator[None]:
    """Turn the exceptions of the SDK and of aiohttp into ours."""
    try:
        yield
    except ErrorStatus as error:
        raise refusal(error) from error
    except errors.APIError as error:
        raise BadReply(f"Gemini answered {error.code}", billed=None) from error
    except json.JSONDecodeError as error:
        raise GeminiFailed("Gemini answered an error that cannot be read") from error
    except UnexpectedStatus as error:
        raise _unexpected_status(error.status) from error
    except TimeoutError as error:
        raise _too_slow(exchange.connected) from error
    except (ProxyRefused, aiohttp.ClientHttpProxyError) as error:
        raise NotExecuted(GeminiUnavailable("the proxy refused to connect to Gemini")) from error
    except (aiohttp.ClientError, OSError) as error:
        raise _broken(exchange.connected) from error
    except ReplyTooLarge as error:
        too_large = f"Gemini's reply is larger than {error} (GEMINI_MAX_REPLY_BYTES): what is kept of it is cut there"
        raise BadReply(too_large, billed=None) from error
    except ValueError as error:
        raise BadReply("Gemini's reply cannot be read", billed=None) from error


def _unexpected_status(status: int) -> GeminiError:
    if status >= 300:
        return GeminiRejected(f"Gemini answered {status}, and a redirect is not followed", billed=None)
    return BadReply(f"Gemini answered {status} without a reply", billed=None)


def _too_slow(connected: bool) -> GeminiTimeout:
    if connected:
        return GeminiTimeout("Gemini did not answer in time; the call may have been billed", billed=None)
    return GeminiTimeout("Gemini could not be reached in time")


def _broken(connected: bool) -> Exception:
    if connected:
        return OutcomeUnknown("the connection to Gemini broke; the call may have been billed", billed=None)
    return NotExecuted(GeminiUnavailable("Gemini cannot be reached"))


@contextlib.asynccontextmanager
async def open_gemini(access: GeminiAccess, up: Callable[[], bool] = lambda: True) -> AsyncIterator[GeminiService]:
    """A GeminiService with its own connection pool, which is closed at the end."""
    proxy = None if access.local else proxy_for(access.base_url or GOOGLE)
    return_large_buffers()
    async with session(proxy) as http:
        client = await asyncio.to_thread(_client, access, http)
        yield GeminiService(client, access, up)


def _client(access: GeminiAccess, http: aiohttp.ClientSession) -> genai.Client:
    tls = _tls_context(os.environ.get("SSL_CERT_FILE", certifi.where()), os.environ.get("SSL_CERT_DIR"))
    # The SDK also creates clients that it never uses; they would fail on an unsupported proxy.
    unused = {"trust_env": False, "verify": tls}
    return genai.Client(
        api_key=access.api_key,
        vertexai=False,
        http_options=types.HttpOptions(
            base_url=access.base_url or GOOGLE,
            api_version=access.api_version,
            timeout=round(1000 * max(access.timeout, MIN_SERVER_SECONDS)),
            aiohttp_client=http,
            client_args=unused,
            async_client_args={**unused, "ssl": tls},
            # By default the SDK resends a call whose connection was dropped, and pays twice.
            retry_options=types.HttpRetryOptions(attempts=1),
        ),
    )


@functools.lru_cache(maxsize=1)
def _tls_context(file: str, directory: str | None) -> ssl.SSLContext:
    """One TLS context for all clients of the SDK, which would load the certificates (30 ms of CPU) three times."""
    return ssl.create_default_context(cafile=file, capath=directory)
