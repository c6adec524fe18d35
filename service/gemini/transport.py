"""The HTTP session under the SDK: big bodies pass by it, so that no picture as base64 or JSON stalls the loop."""

import base64
import io
import secrets
from contextvars import ContextVar
from dataclasses import dataclass, field

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

# A 4K picture as PNG is some 25 MB, a third more in base64.
MAX_REPLY_BYTES = 96 * 1024 * 1024

# What the SDK is given instead of a reference picture; its base64 stands in the request exactly once.
STAND_IN = secrets.token_bytes(33)
_STAND_IN_BASE64 = base64.urlsafe_b64encode(STAND_IN)


class ReplyTooLarge(Exception):
    """A reply of over MAX_REPLY_BYTES."""


@dataclass(slots=True)
class Exchange:
    """The bodies of one call: URL-safe base64 to put in place of STAND_IN, and the 200 answer as it came."""

    reference: bytes = b""
    reply: bytearray = field(default_factory=bytearray)


EXCHANGE: ContextVar[Exchange] = ContextVar("exchange")


def session() -> aiohttp.ClientSession:
    """A session for the SDK; each call sets EXCHANGE first. Connections are not limited here, but by the service."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), middlewares=(_put_reference,), response_class=_Response
    )


async def _put_reference(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    body, reference = request.body, EXCHANGE.get().reference
    if reference and isinstance(body, aiohttp.BytesPayload):
        await request.update_body(io.BytesIO(body.decode().encode().replace(_STAND_IN_BASE64, reference, 1)))
    return await handler(request)


class _Response(ClientResponse):
    async def text(self, encoding: str | None = None, errors: str = "strict") -> str:
        """The text of an error. A 200 is put aside as bytes instead; raises ReplyTooLarge."""
        if self.status != 200:
            return await super().text(encoding, errors)
        reply = EXCHANGE.get().reply
        try:
            async for chunk in self.content.iter_any():
                reply += chunk
                if len(reply) > MAX_REPLY_BYTES:
                    raise ReplyTooLarge
        except BaseException:
            self.close()
            raise
        return ""
