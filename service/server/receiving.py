"""Receives request bodies: what any body is refused for, its chunks, counted as they arrive, and JSON as a whole."""

import contextlib
from collections.abc import AsyncIterator, Mapping

from aiohttp import web
from multipart import parse_options_header

from service.errors import TooLarge, UnknownField, UnsupportedEncoding, UnsupportedMediaType
from service.schemas.json_body import JsonObject, read_json
from service.schemas.media_types import JSON
from service.server.bodies import Body
from service.server.keys import ADMISSION

# Of a body without files.
MAX_SMALL_BODY = 1024 * 1024
_UTF8 = ("utf-8", "utf8", "us-ascii")


def media_type(request: web.Request) -> tuple[str, Mapping[str, str]]:
    """The type of the body, in lower case, and its parameters; raises UnknownField and UnsupportedEncoding."""
    if request.query_string:
        name = next(iter(request.query), request.query_string)[:60]
        raise UnknownField(
            f"query parameters are not read, here {name!r}: send every field in the body", param=name[:60]
        )
    if "Content-Encoding" in request.headers:
        raise UnsupportedEncoding("send the body without Content-Encoding")
    kind, parameters = parse_options_header(request.headers.get("Content-Type", ""))
    return kind, parameters


def check_charset(parameters: Mapping[str, str]) -> None:
    """Raise UnsupportedMediaType for another `charset` than UTF-8 or its subset ASCII."""
    if parameters.get("charset", "utf-8").lower() not in _UTF8:
        raise UnsupportedMediaType("send the body as UTF-8")


@contextlib.asynccontextmanager
async def receiving(request: web.Request, most: int) -> AsyncIterator[Body]:
    """Wait for a turn to read the body; raises TooLarge if it says that it is longer than `most`, Busy and Draining."""
    if (request.content_length or 0) > most:
        raise _too_large(most)
    async with request.app[ADMISSION].bodies.reading(request.content) as body:
        await _send_continue(request)
        yield body


async def chunks(body: Body, most: int) -> AsyncIterator[bytes]:
    """The chunks of a body as they arrive; raises TooLarge beyond `most` bytes, BodyTimeout, MalformedBody."""
    total = 0
    while chunk := await body.read():
        total += len(chunk)
        if total > most:
            raise _too_large(most)
        yield chunk


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the body is larger than {most} bytes")


async def _send_continue(request: web.Request) -> None:
    """Answer `Expect: 100-continue`, now that the request is admitted."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.version >= (1, 1):
        writer = request.writer
        await writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        writer.output_size = 0


async def receive_small(request: web.Request) -> bytes:
    """A body without files; raises as `receiving` and `chunks`."""
    received = bytearray()
    async with receiving(request, MAX_SMALL_BODY) as body:
        async for chunk in chunks(body, MAX_SMALL_BODY):
            request.app[ADMISSION].bodies.buffer(body, len(chunk))
            received += chunk
    return bytes(received)


async def receive_json(request: web.Request) -> JsonObject:
    """The JSON object that the body is; raises RequestError for any other body, Busy and Draining."""
    kind, parameters = media_type(request)
    if kind != JSON:
        raise UnsupportedMediaType(f"send the fields as {JSON}")
    check_charset(parameters)
    return read_json(await receive_small(request))
