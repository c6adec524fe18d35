"""The HTTP session under the SDK: big bodies pass by it, so that no picture as base64 or JSON stalls the loop."""

import base64
import io
import secrets
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from service.gemini.refusals import raise_for_status

# What the SDK is given instead of a reference picture; its base64 stands in the request exactly once.
PLACEHOLDER = secrets.token_bytes(33)
_PLACEHOLDER_BASE64 = base64.urlsafe_b64encode(PLACEHOLDER)


class ReplyTooLarge(Exception):
    """A reply of more bytes than the message says."""


@dataclass(slots=True)
class Exchange:
    """The bodies of one call: URL-safe base64 to put in place of PLACEHOLDER, and the 200 answer as it came.

    No answer may be longer than `max_reply_bytes`. `sent` is called when there is a connection, just before the first
    byte goes out.
    """

    max_reply_bytes: int
    reference: bytes = b""
    reply: bytearray = field(default_factory=bytearray)
    sent: Callable[[], None] = lambda: None


EXCHANGE: ContextVar[Exchange] = ContextVar("exchange")


def session() -> aiohttp.ClientSession:
    """A session for the SDK; each call sets EXCHANGE first. Connections are not limited here, but by the service."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        middlewares=(_put_reference, raise_for_status),
        response_class=_Response,
        trace_configs=[_tell_sent()],
    )


def _tell_sent() -> aiohttp.TraceConfig:
    """Between these signals and the first byte nothing is awaited: until then a call can be cancelled for nothing."""

    async def connected(*_: object) -> None:
        EXCHANGE.get().sent()

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(connected)
    trace.on_connection_reuseconn.append(connected)
    return trace


async def _put_reference(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    body, reference = request.body, EXCHANGE.get().reference
    if reference and isinstance(body, aiohttp.BytesPayload):
        await request.update_body(io.BytesIO(body.decode().encode().replace(_PLACEHOLDER_BASE64, reference, 1)))
    return await handler(request)


class _Response(ClientResponse):
    async def text(self, encoding: str | None = None, errors: str = "strict") -> str:
        """The text of an error. A 200 is put aside as bytes instead."""
        if self.status != 200:
            return await super().text(encoding, errors)
        await self._take(EXCHANGE.get().reply)
        return ""

    async def read(self) -> bytes:
        if self._body is None:
            body = bytearray()
            await self._take(body)
            self._body = bytes(body)
        return self._body

    async def _take(self, body: bytearray) -> None:
        """Add what comes to `body`; raises ReplyTooLarge."""
        limit = EXCHANGE.get().max_reply_bytes
        try:
            async for chunk in self.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise ReplyTooLarge(f"{limit} bytes")
        except BaseException:
            self.close()
            raise
