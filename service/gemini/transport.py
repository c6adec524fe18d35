"""The HTTP session under the SDK: large bodies bypass its base64 and JSON code, which would block the event loop."""

import asyncio
import base64
import io
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from yarl import URL

from service.gemini.body import ReplyBody
from service.gemini.coding import ACCEPTED, ContentDecoder
from service.gemini.refusals import ErrorStatus

# What the SDK is given instead of a reference picture; its base64 stands in the request exactly once.
PLACEHOLDER = secrets.token_bytes(33)
_PLACEHOLDER_BASE64 = base64.urlsafe_b64encode(PLACEHOLDER)
REPLY, PROXY_AUTHENTICATION_REQUIRED = 200, 407
# An error is a few KB of JSON or HTML. The status alone decides; what comes late or in bulk only loses its words.
MAX_ERROR_BYTES = 256 * 1024
ERROR_BODY_SECONDS = 1.0
# What proxies add to the head of a reply must not cost it: eight times what aiohttp allows by default.
MAX_HEADER_BYTES = 64 * 1024


class ReplyTooLarge(Exception):
    """A reply of more bytes than the message says; the first of them are in its body."""


class NotAnAnswer(Exception):
    """A `status` that neither brings a reply nor refuses one, such as a redirect."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class ProxyRefused(Exception):
    """The proxy wants a user and password, or others."""


@dataclass(slots=True)
class Exchange:
    """What one call sends and receives beside the SDK.

    `reference` is URL-safe base64 to put in place of PLACEHOLDER; the reply's body goes into `body`, at most
    `max_reply_bytes` of it. `connected` is set, and `sent` called, when there is a connection, just before the first
    byte goes out. No word that is quoted may hold `key`.
    """

    body: ReplyBody
    max_reply_bytes: int
    reference: bytes = b""
    key: str = ""
    connected: bool = False
    sent: Callable[[], None] = lambda: None

    async def take(self, data: bytes) -> None:
        """Add to the body; raises ReplyTooLarge."""
        room = self.max_reply_bytes - self.body.size
        await self.body.add(data[:room])
        if len(data) > room:
            raise ReplyTooLarge(f"{self.max_reply_bytes} bytes")


EXCHANGE: ContextVar[Exchange] = ContextVar("exchange")


def session(proxy: URL | None = None) -> aiohttp.ClientSession:
    """A session for the SDK; each call sets EXCHANGE first. Connections are not limited here, but by the service."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        headers={"Accept-Encoding": ACCEPTED},
        middlewares=(_put_reference, _check_status),
        response_class=_Response,
        auto_decompress=False,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        proxy=proxy,
        trace_configs=[_tell_connected()],
    )


def _tell_connected() -> aiohttp.TraceConfig:
    """Nothing was executed of what fails before, and nothing is awaited between this and the first byte."""

    async def connected(*_: object) -> None:
        exchange = EXCHANGE.get()
        exchange.connected = True
        exchange.sent()

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(connected)
    trace.on_connection_reuseconn.append(connected)
    return trace


async def _put_reference(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    body, reference = request.body, EXCHANGE.get().reference
    if reference and isinstance(body, aiohttp.BytesPayload):
        await request.update_body(io.BytesIO(body.decode().encode().replace(_PLACEHOLDER_BASE64, reference, 1)))
    return await handler(request)


async def _check_status(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Raise for all but a reply.

    aiohttp would follow a redirect, with the key and the whole request, to wherever it leads; the SDK would parse the
    body of an error first and let that fail in the error's place.
    """
    response = await handler(request)
    if response.status == PROXY_AUTHENTICATION_REQUIRED and request.proxy:
        response.close()
        raise ProxyRefused
    if response.status < 200 or 300 <= response.status < 400:
        response.close()
        raise NotAnAnswer(response.status)
    if 400 <= response.status < 600:
        body, whole = await _error_body(response)
        raise ErrorStatus(response.status, response.headers, body, whole, EXCHANGE.get().key)
    # The SDK takes any other status for an error.
    response.status = REPLY
    return response


async def _error_body(response: ClientResponse) -> tuple[bytes, bool]:
    """The body of an error, as far as it came in time, and whether that is all of it."""
    body, whole = bytearray(), False
    try:
        async with asyncio.timeout(ERROR_BODY_SECONDS), aclosing(pieces(response)) as coming:
            async for piece in coming:
                body += piece
                if len(body) > MAX_ERROR_BYTES:
                    break
            else:
                whole = True
    except (aiohttp.ClientError, OSError, ValueError):
        pass
    finally:
        response.close()
    return bytes(body[:MAX_ERROR_BYTES]), whole


async def pieces(response: ClientResponse) -> AsyncGenerator[bytes, None]:
    """What comes, without its Content-Encoding; the connection is given up if not all of it is taken."""
    decoder = ContentDecoder(response.headers.get("Content-Encoding", ""))
    try:
        async for chunk in response.content.iter_any():
            decoder.feed(chunk)
            while piece := await decoder.next_piece():
                yield piece
        for piece in decoder.end():
            yield piece
    except BaseException:
        response.close()
        raise


class _Response(ClientResponse):
    async def text(self, encoding: str | None = None, errors: str = "strict") -> str:
        """Set the body of a reply aside as bytes: the SDK is given nothing to parse."""
        exchange = EXCHANGE.get()
        async with aclosing(pieces(self)) as coming:
            async for piece in coming:
                await exchange.take(piece)
        return ""
