"""The HTTP session under the SDK: large bodies bypass its base64 and JSON code, which would block the event loop."""

import asyncio
import base64
import io
import secrets
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from yarl import URL

from service.gemini.body import ReplyBody
from service.gemini.coding import ACCEPTED, ContentDecoder, codings
from service.gemini.refusals import ErrorStatus
from service.spans import current_traceparent
from service.tracing import CORRELATION_IDS

# Passed to the SDK instead of a reference picture; the middleware replaces its base64 in the request.
PLACEHOLDER = secrets.token_bytes(33)
_PLACEHOLDER_BASE64 = base64.urlsafe_b64encode(PLACEHOLDER)
REPLY, PROXY_AUTHENTICATION_REQUIRED = 200, 407
# Limits for the body of an error, a few KB of JSON or HTML. Without a body, the status alone says what to do.
MAX_ERROR_BYTES = 256 * 1024
ERROR_BODY_SECONDS = 1.0
# Proxies may add long headers to a reply that was billed: eight times the default limit of aiohttp.
MAX_HEADER_BYTES = 64 * 1024


class ReplyTooLarge(Exception):
    """A reply exceeds the limit in the message; its body has the bytes up to there."""


class UnexpectedStatus(Exception):
    """A `status` that is neither a reply nor an error, such as a redirect."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class ProxyRefused(Exception):
    """The proxy answered 407: it requires another user and password."""


@dataclass(slots=True)
class Exchange:
    """The data of one call that bypasses the SDK.

    `reference` is URL-safe base64 that replaces PLACEHOLDER; at most `max_reply_bytes` of the reply are added to
    `body`. Once there is a connection, just before the first byte is sent, `connected` is set and `sent` called.
    `key` is removed from quoted text.
    """

    body: ReplyBody
    max_reply_bytes: int
    reference: bytes = b""
    key: str = ""
    connected: bool = False
    sent: Callable[[], None] = lambda: None

    async def receive(self, data: bytes) -> None:
        """Add to the body; raises ReplyTooLarge."""
        space = self.max_reply_bytes - self.body.size
        await self.body.add(data[:space])
        if len(data) > space:
            raise ReplyTooLarge(f"{self.max_reply_bytes} bytes")


EXCHANGE: ContextVar[Exchange] = ContextVar("exchange")


def session(proxy: URL | None = None) -> aiohttp.ClientSession:
    """A session for the SDK; each call sets EXCHANGE first. CallQueue limits the number of connections."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        headers={"Accept-Encoding": ACCEPTED},
        # Calls are independent, and a jar of what every server sets would grow without bound.
        cookie_jar=aiohttp.DummyCookieJar(),
        middlewares=(_pass_on_correlation_ids, _insert_reference, _check_status),
        response_class=_Response,
        auto_decompress=False,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        proxy=proxy,
        trace_configs=[_connection_trace()],
    )


def _connection_trace() -> aiohttp.TraceConfig:
    """Marks the exchange as connected: a call that fails before that was not executed.

    Nothing is awaited between this and the first byte sent.
    """

    async def connected(*_: object) -> None:
        exchange = EXCHANGE.get()
        exchange.connected = True
        exchange.sent()

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(connected)
    trace.on_connection_reuseconn.append(connected)
    return trace


async def _pass_on_correlation_ids(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Send the trace context and the request id that the client's request came with."""
    request.headers.update(CORRELATION_IDS.get().headers)
    if traceparent := current_traceparent():
        request.headers["traceparent"] = traceparent
    return await handler(request)


async def _insert_reference(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    body, reference = request.body, EXCHANGE.get().reference
    if reference and isinstance(body, aiohttp.BytesPayload):
        await request.update_body(io.BytesIO(body.decode().encode().replace(_PLACEHOLDER_BASE64, reference, 1)))
    return await handler(request)


async def _check_status(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Raise for any status but a reply.

    aiohttp would follow a redirect with the key and the whole request; the SDK would parse the body of an error, and
    raise for that if it is not JSON.
    """
    response = await handler(request)
    if response.status == PROXY_AUTHENTICATION_REQUIRED and request.proxy:
        response.close()
        raise ProxyRefused
    if response.status < 200 or 300 <= response.status < 400:
        response.close()
        raise UnexpectedStatus(response.status)
    if 400 <= response.status < 600:
        body, whole = await _error_body(response)
        raise ErrorStatus(response.status, response.headers, body, whole, EXCHANGE.get().key)
    # The SDK treats any other status as an error.
    response.status = REPLY
    return response


async def _error_body(response: ClientResponse) -> tuple[bytes, bool]:
    """The body of an error, as far as it arrived in time, and whether it is complete."""
    body, whole = bytearray(), False
    try:
        async with asyncio.timeout(ERROR_BODY_SECONDS), aclosing(pieces(response)) as chunks:
            async for piece in chunks:
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
    """The decoded chunks of a body; closes the connection if not all of them are consumed."""
    chunks: AsyncIterable[bytes] = response.content.iter_any()
    for coding in codings(response.headers.getall("Content-Encoding", [])):
        chunks = _decoded(chunks, coding)
    try:
        async for chunk in chunks:
            yield chunk
    except BaseException:
        response.close()
        raise


async def _decoded(chunks: AsyncIterable[bytes], coding: str) -> AsyncGenerator[bytes, None]:
    decoder = ContentDecoder(coding)
    async for chunk in chunks:
        decoder.feed(chunk)
        while piece := await decoder.next_piece():
            yield piece
    for piece in decoder.end():
        yield piece


class _Response(ClientResponse):
    async def text(self, encoding: str | None = None, errors: str = "strict") -> str:
        """Add the body to the exchange; the SDK gets nothing to parse."""
        exchange = EXCHANGE.get()
        async with aclosing(pieces(self)) as chunks:
            async for piece in chunks:
                await exchange.receive(piece)
        return ""
