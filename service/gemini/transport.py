"""The HTTP session under the SDK: large bodies bypass its base64 and JSON code, which would block the event loop."""

import base64
import io
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from yarl import URL

from service.gemini.body import ReplyBody
from service.gemini.coding import ACCEPTED, ContentDecoder
from service.quoting import without_key

# What the SDK is given instead of a reference picture; its base64 stands in the request exactly once.
PLACEHOLDER = secrets.token_bytes(33)
_PLACEHOLDER_BASE64 = base64.urlsafe_b64encode(PLACEHOLDER)
REPLY, PROXY_AUTHENTICATION_REQUIRED = 200, 407
MAX_ERROR_BYTES = 256 * 1024
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
    `max_reply_bytes` of it. `connected` is set when there is a connection, just before the first byte goes out. No word
    that is quoted may hold `key`.
    """

    body: ReplyBody
    max_reply_bytes: int
    reference: bytes = b""
    key: str = ""
    connected: bool = False

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
        middlewares=(_put_reference, _sort_by_status),
        response_class=_Response,
        auto_decompress=False,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        proxy=proxy,
        trace_configs=[_tell_connected()],
    )


def _tell_connected() -> aiohttp.TraceConfig:
    """Nothing was executed of what fails before."""

    async def connected(*_: object) -> None:
        EXCHANGE.get().connected = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(connected)
    trace.on_connection_reuseconn.append(connected)
    return trace


async def _put_reference(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    body, reference = request.body, EXCHANGE.get().reference
    if reference and isinstance(body, aiohttp.BytesPayload):
        await request.update_body(io.BytesIO(body.decode().encode().replace(_PLACEHOLDER_BASE64, reference, 1)))
    return await handler(request)


async def _sort_by_status(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Raise before aiohttp follows a redirect, with the key and the whole request, to wherever it leads."""
    response = await handler(request)
    if response.status == PROXY_AUTHENTICATION_REQUIRED and request.proxy:
        response.close()
        raise ProxyRefused
    if response.status < 200 or 300 <= response.status < 400:
        response.close()
        raise NotAnAnswer(response.status)
    if not 400 <= response.status < 600:
        # The SDK takes any other for an error.
        response.status = REPLY
    return response


class _Response(ClientResponse):
    async def text(self, encoding: str | None = None, errors: str = "strict") -> str:
        """The text of an error. The body of a reply is set aside as bytes instead."""
        if self.status != REPLY:
            return await super().text(encoding, errors)
        exchange = EXCHANGE.get()
        async with aclosing(self.pieces()) as pieces:
            async for piece in pieces:
                await exchange.take(piece)
        return ""

    async def read(self) -> bytes:
        """As much of an error as is looked at for its words, which do not show the key."""
        if self._body is None:
            body = b""
            async with aclosing(self.pieces()) as pieces:
                async for piece in pieces:
                    body += piece
                    if len(body) > MAX_ERROR_BYTES:
                        break
            key = EXCHANGE.get().key
            self._body = without_key(body[:MAX_ERROR_BYTES].decode("latin-1"), key).encode("latin-1")
        return self._body

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """What comes, without its Content-Encoding; the connection is given up if not all of it is taken."""
        decoder = ContentDecoder(self.headers.get("Content-Encoding", ""))
        try:
            async for chunk in self.content.iter_any():
                decoder.feed(chunk)
                while piece := await decoder.next_piece():
                    yield piece
            for piece in decoder.end():
                yield piece
        except BaseException:
            self.close()
            raise
