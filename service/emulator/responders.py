"""Responders: how the emulator answers one request, normally or with a fault."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from PIL import Image

from service.emulator.wire import GenerateRequest, Json, dump, picture_part, reply
from service.emulator.wire import error as error_body
from service.emulator.wrappings import Wrapping

_JSON = "application/json; charset=UTF-8"


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request that waits for its response. `paint` draws its picture, `closing` is set when the emulator stops."""

    request: web.Request
    received: GenerateRequest
    number: int
    paint: Callable[[], Awaitable[bytes]]
    closing: asyncio.Event

    def reply(self, *parts: Json) -> Json:
        return reply(self.received, list(parts), f"emulated-{self.number}")


Responder = Callable[[PendingRequest], Awaitable[web.StreamResponse]]


def json_response(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=body, status=status, headers={"Content-Type": _JSON, **(headers or {})})


async def one_picture(pending: PendingRequest) -> web.Response:
    """The normal response: one picture."""
    return await _send(lambda picture: pending.reply(picture_part(picture)), await pending.paint())


async def _send(build: Callable[[bytes], Json], picture: bytes) -> web.Response:
    return json_response(await asyncio.to_thread(lambda: dump(build(picture))))


def error(
    code: int, message: str, *details: Json, status: str | None = None, retry_after: str | None = None
) -> Responder:
    """An error in Google's JSON; `retry_after` is the header, RetryInfo belongs to the details."""
    body = dump(error_body(code, message, status, details))
    headers = {"Retry-After": retry_after} if retry_after else {}

    async def answer(_: PendingRequest) -> web.Response:
        return json_response(body, code, headers)

    return answer


def raw(status: int, body: bytes = b"", content_type: str = _JSON) -> Responder:
    async def answer(_: PendingRequest) -> web.Response:
        return web.Response(status=status, body=body, headers={"Content-Type": content_type})

    return answer


def parts(build: Callable[[bytes], list[Json]]) -> Responder:
    """A normal response, with the parts that `build` makes of its picture."""

    async def answer(pending: PendingRequest) -> web.Response:
        return await _send(lambda picture: pending.reply(*build(picture)), await pending.paint())

    return answer


def repainted(change: Callable[[bytes], bytes], mime_type: str = "image/png") -> Responder:
    return parts(lambda picture: [picture_part(change(picture), mime_type)])


def saved(pillow: str, mode: str = "RGB", mime_type: str = "image/png") -> Responder:
    """The picture in another format or mode, declared as `mime_type`."""
    return repainted(lambda picture: resaved(picture, lambda image: image.convert(mode), pillow), mime_type)


def finished(reason: str, message: str | None = None) -> Responder:
    """A candidate with this finishReason, without a picture, and not billed."""
    candidate: Json = {"finishReason": reason, "index": 0}
    if message:
        candidate["finishMessage"] = message
    return edited(lambda body: body.update(candidates=[candidate]), billed=False)


def blocked(reason: str) -> Responder:
    def edit(body: Json) -> None:
        del body["candidates"]
        body["promptFeedback"] = {"blockReason": reason}

    return edited(edit, billed=False)


def edited(edit: Callable[[Json], object], billed: bool = True) -> Responder:
    """A normal response, changed in place by `edit`; `billed=False` removes the candidate tokens from its usage."""

    async def answer(pending: PendingRequest) -> web.Response:
        body = pending.reply(picture_part(await pending.paint()))
        if not billed:
            usage = body["usageMetadata"]
            body["usageMetadata"] = dict.fromkeys(("promptTokenCount", "totalTokenCount"), usage["promptTokenCount"])
        edit(body)
        return json_response(dump(body))

    return answer


def wrapped(wrapping: Wrapping) -> Responder:
    """A normal response, transformed by a Wrapping."""

    async def answer(pending: PendingRequest) -> web.Response:
        body = pending.reply(picture_part(await pending.paint()))
        data = await asyncio.to_thread(wrapping.wrap, body)
        return json_response(data, wrapping.status, dict(wrapping.headers))

    return answer


def redirect(status: int, location: str | None) -> Responder:
    """A redirect, to the same URL if `location` is empty."""

    async def answer(pending: PendingRequest) -> web.Response:
        headers = {} if location is None else {"Location": location or str(pending.request.url)}
        return json_response(dump(pending.reply(picture_part(await pending.paint()))), status, headers)

    return answer


def resaved(picture: bytes, change: Callable[[Image.Image], Image.Image], pillow: str = "PNG") -> bytes:
    out = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as image:
        change(image).save(out, pillow)
    return out.getvalue()


def hang_up(pending: PendingRequest, sent: bytes = b"") -> web.StreamResponse:
    if transport := pending.request.transport:
        transport.write(sent)
        transport.close()
    return web.Response()


def cut(with_length: bool) -> Responder:
    """Half a response; without a Content-Length it looks complete to HTTP."""

    async def answer(pending: PendingRequest) -> web.StreamResponse:
        body = dump(pending.reply(picture_part(await pending.paint())))
        length = f"Content-Length: {len(body)}\r\n" if with_length else ""
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {_JSON}\r\n{length}Connection: close\r\n\r\n"
        return hang_up(pending, head.encode() + body[: len(body) // 2])

    return answer
