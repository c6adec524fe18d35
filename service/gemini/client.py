"""GeminiService: one call, one reply; the only file that imports google.genai."""

import asyncio
import base64
import contextlib
import json
import math
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from google import genai
from google.genai import errors, types

from service.errors import (
    BadReply,
    GeminiAuth,
    GeminiError,
    GeminiFailed,
    GeminiRejected,
    GeminiTimeout,
    GeminiUnavailable,
    OutcomeUnknown,
    QuotaExhausted,
    StorageUnavailable,
)
from service.gemini.body import ReplyBody, ReplyMemory
from service.gemini.proxy import proxy_for
from service.gemini.reply import Reply
from service.gemini.transport import (
    EXCHANGE,
    PLACEHOLDER,
    Exchange,
    NotAnAnswer,
    ProxyRefused,
    ReplyTooLarge,
    session,
)

GOOGLE = "https://generativelanguage.googleapis.com/"
# Google refuses a deadline under 10 s (the SDK sends ours along); shorter ones are kept on our side alone.
MIN_SERVER_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 16.0
# The most that Google's Duration can say, some 10,000 years.
LONGEST_DELAY_SECONDS = 315_576_000_000
DAILY_RETRY_AFTER_SECONDS = 3600
# A quota of a day, or of nothing at all, does not clear within a request.
_LASTING_QUOTA = re.compile(r"per[ _-]?day|daily|limit:\s*0\b", re.IGNORECASE)
_DELAY = re.compile(r"(\d+(?:\.\d+)?)s?")


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
    """What one call asks for; `aspect_ratio` and `image_size` as Gemini spells them (`16:9`, `1K`).

    `body` takes the reply; its owner keeps it until the picture is stored, and closes it.
    """

    model: str
    prompt: str
    aspect_ratio: str
    image_size: str
    reference: Reference | None = None
    body: ReplyBody | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class GeminiAccess:
    """Where Gemini is and how long it may take; seconds and bytes.

    `local`: it is the emulator of this service, which is reached without a proxy and whose key is no secret.
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
        """What no word shown may hold."""
        return "" if self.local else self.api_key


class _NotExecuted(Exception):
    """Gemini did nothing, so the call may be made again, not before `seconds` if it said so."""

    def __init__(self, error: GeminiError, seconds: float | None = None) -> None:
        super().__init__(error.detail)
        self.error = error
        self.seconds = seconds


InFlight = Callable[[bool], Awaitable[None]]


async def _unheard(now: bool) -> None:
    pass


class GeminiService:
    """Makes calls under one service-wide limit; sends again only what Gemini surely did nothing with.

    `up` tells of a stand-in whether it runs; of Gemini itself nothing is known before a call.
    """

    def __init__(self, client: genai.Client, access: GeminiAccess, up: Callable[[], bool]) -> None:
        self.up = up
        self._client = client
        self._access = access
        self._slots = asyncio.Semaphore(access.concurrency)
        self._memory = ReplyMemory(access.replies_memory)
        self._resume_at: dict[str, float] = {}

    def reply_body(self) -> ReplyBody:
        """For the reply to one call; to be closed."""
        return ReplyBody(self._memory)

    async def draw(self, call: Call, in_flight: InFlight = _unheard) -> Reply:
        """One picture. Raises GeminiError, its `billed` saying what is known of the cost.

        `in_flight` hears True when the call is about to go out, which what it raises prevents, and False when
        Gemini surely did nothing with it.
        """
        clock = asyncio.get_running_loop().time
        give_up_at = pause = 0.0
        while True:
            await self._cool_down(call.model)
            async with self._slots:
                if self._cooling(call.model) > 0:
                    continue
                await in_flight(True)
                try:
                    return await self._once(call)
                except _NotExecuted as refusal:
                    await in_flight(False)
                    pause = min(pause * 2, LONGEST_PAUSE_SECONDS) or FIRST_PAUSE_SECONDS
                    wait = max(pause * random.uniform(0.5, 1), refusal.seconds or 0)  # noqa: S311  # jitter
                    give_up_at = give_up_at or clock() + self._access.retry
                    if clock() + wait > give_up_at:
                        raise refusal.error from None
                    self._pause_model(call.model, clock() + wait)

    async def _cool_down(self, model: str) -> None:
        """Wait while Gemini wants no calls for this model; all calls share the pause."""
        while (wait := self._cooling(model)) > 0:
            await asyncio.sleep(wait)

    def _cooling(self, model: str) -> float:
        """Seconds until the model may be called again."""
        return self._resume_at.get(model, 0) - asyncio.get_running_loop().time()

    def _pause_model(self, model: str, until: float) -> None:
        now = asyncio.get_running_loop().time()
        self._resume_at = {name: end for name, end in self._resume_at.items() if end > now}
        self._resume_at[model] = max(until, self._resume_at.get(model, 0))

    async def _once(self, call: Call) -> Reply:
        reference = await asyncio.to_thread(call.reference.encode) if call.reference else b""
        body = call.body or ReplyBody(ReplyMemory(self._access.max_reply_bytes))
        body.clear()
        exchange = Exchange(body, self._access.max_reply_bytes, reference, self._access.secret)
        EXCHANGE.set(exchange)
        try:
            with _translated(exchange):
                async with asyncio.timeout(self._access.timeout):
                    await self._client.aio.models.generate_content(
                        model=call.model, contents=_contents(call), config=_config(call)
                    )
        finally:
            # The context lives on, in the caller's task and in timers of the connection.
            exchange.reference = b""
        return await body.read(self._access.secret)


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
def _translated(exchange: Exchange) -> Iterator[None]:
    """The SDK's many ways to fail, as ours."""
    try:
        yield
    except errors.APIError as error:
        raise _from_api(error) from error
    except json.JSONDecodeError as error:
        raise GeminiFailed("Gemini answered an error that cannot be read") from error
    except NotAnAnswer as error:
        raise _not_an_answer(error.status) from error
    except TimeoutError as error:
        raise _too_slow(exchange.connected) from error
    except (ProxyRefused, aiohttp.ClientHttpProxyError) as error:
        raise _NotExecuted(GeminiUnavailable("the proxy refused to connect to Gemini")) from error
    except (aiohttp.ClientError, OSError) as error:
        raise _broken(exchange.connected) from error
    except ReplyTooLarge as error:
        too_large = f"Gemini's reply is larger than {error} (GEMINI_MAX_REPLY_BYTES): what is kept of it is cut there"
        raise BadReply(too_large, billed=None) from error
    except ValueError as error:
        raise BadReply("Gemini's reply cannot be read", billed=None) from error


def _not_an_answer(status: int) -> GeminiError:
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
    return _NotExecuted(GeminiUnavailable("Gemini cannot be reached"))


def _from_api(error: errors.APIError) -> Exception:
    said = f"Gemini answered {error.code}: {' '.join(str(error.message or error.status or '').split())[:200]}"
    if error.code == 429:
        return _from_quota(error, said)
    if error.code == 503:
        return _NotExecuted(GeminiUnavailable(said), _asked_delay(error))
    if error.code == 504:
        return GeminiTimeout(said)
    if error.code in (401, 403) or "API_KEY_INVALID" in str(error.details):
        return GeminiAuth(said)
    if 400 <= error.code < 500:
        return GeminiRejected(said)
    if error.code >= 500:
        return GeminiFailed(said)
    return BadReply(said, billed=None)


def _from_quota(error: errors.APIError, said: str) -> Exception:
    delay = _asked_delay(error)
    lasting = _LASTING_QUOTA.search(f"{error.message} {error.details}") is not None
    seconds = FIRST_PAUSE_SECONDS if delay is None else delay
    if lasting:
        seconds = max(seconds, DAILY_RETRY_AFTER_SECONDS)
    quota = QuotaExhausted(said, headers={"Retry-After": str(max(1, math.ceil(seconds)))})
    return quota if lasting else _NotExecuted(quota, delay)


def _asked_delay(error: errors.APIError) -> float | None:
    """Seconds to wait by RetryInfo in the body, else by Retry-After; None when neither says."""
    details = error.details.get("error", error.details) if isinstance(error.details, dict) else {}
    infos = details.get("details") if isinstance(details, dict) else None
    for info in infos if isinstance(infos, list) else []:
        if isinstance(info, dict) and (match := _DELAY.fullmatch(str(info.get("retryDelay", "")))):
            return _seconds(match)
    headers = getattr(error.response, "headers", None) or {}
    match = _DELAY.fullmatch(str(headers.get("Retry-After", "")))
    return _seconds(match) if match else None


def _seconds(delay: re.Match[str]) -> float:
    return min(float(delay[1]), LONGEST_DELAY_SECONDS)


@contextlib.asynccontextmanager
async def open_gemini(access: GeminiAccess, up: Callable[[], bool] = lambda: True) -> AsyncIterator[GeminiService]:
    """A GeminiService with a connection pool of its own, closed at the end."""
    proxy = None if access.local else proxy_for(access.base_url or GOOGLE)
    async with session(proxy) as own:
        client = await asyncio.to_thread(_client, access, own)
        yield GeminiService(client, access, up)


def _client(access: GeminiAccess, own: aiohttp.ClientSession) -> genai.Client:
    return genai.Client(
        api_key=access.api_key,
        vertexai=False,
        http_options=types.HttpOptions(
            base_url=access.base_url or GOOGLE,
            api_version=access.api_version,
            timeout=round(1000 * max(access.timeout, MIN_SERVER_SECONDS)),
            aiohttp_client=own,
            # The clients that the SDK makes beside ours, and never uses, fail on a proxy that they do not support.
            client_args={"trust_env": False},
            async_client_args={"trust_env": False},
            # The SDK would otherwise send a dropped call again, and pay twice.
            retry_options=types.HttpRetryOptions(attempts=1),
        ),
    )
