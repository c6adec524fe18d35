"""The HTTP session: redirects, statuses, encodings, and that the key is not leaked."""

import asyncio
import contextlib
import gzip
import logging
import zlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from service.emulator.responders import (
    PendingRequest,
    Responder,
    edited,
    error,
    finished,
    json_response,
    one_picture,
    parts,
    raw,
)
from service.emulator.wire import dump, picture_part
from service.errors import BadReply, GeminiError, GeminiRejected, GeminiUnavailable, OutcomeUnknown
from service.gemini.client import GeminiAccess, open_gemini
from service.imaging.formats import sniff
from service.server.connections import listening
from tests.gemini.conftest import CALL, Connect
from tests.helpers import KEY, QuickEmulator


@pytest.fixture
async def elsewhere() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Another host, and all requests to it."""
    requests: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.read(65536))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/models/x:generateContent", requests
    server.close()


def redirect(status: int, location: str | None) -> Responder:
    async def answer(asked: PendingRequest) -> web.Response:
        headers = {} if location is None else {"Location": location.replace("SELF", str(asked.request.url))}
        return json_response(dump(asked.reply(picture_part(await asked.paint()))), status, headers)

    return answer


@pytest.mark.parametrize("status", range(300, 309))
@pytest.mark.parametrize(
    "location", ["{elsewhere}", "SELF", "/", "//", "", "not an address", "file:///etc/passwd", None]
)
async def test_no_redirect_is_followed(
    connect: Connect, elsewhere: tuple[str, list[bytes]], status: int, location: str | None
) -> None:
    address, requests = elsewhere
    emulator = QuickEmulator(then=redirect(status, location and location.replace("{elsewhere}", address)))
    with pytest.raises(GeminiRejected) as caught:
        await (await connect(emulator)).generate_image(CALL)
    assert (caught.value.status, caught.value.code) == (502, "gemini_rejected")
    assert (caught.value.billed, caught.value.worth_retrying) == (None, False)
    assert str(status) in caught.value.detail
    assert emulator.requests == 1
    assert requests == []


@pytest.mark.parametrize("status", [101, 199])
async def test_a_1xx_status_is_of_unknown_price(connect: Connect, status: int) -> None:
    async def answer(asked: PendingRequest) -> web.StreamResponse:
        assert asked.request.transport
        asked.request.transport.write(f"HTTP/1.1 {status} Odd\r\nConnection: close\r\n\r\n".encode())
        asked.request.transport.close()
        return web.Response()

    with pytest.raises((BadReply, OutcomeUnknown)) as caught:
        await (await connect(QuickEmulator(then=answer))).generate_image(CALL)
    assert caught.value.billed is None


@pytest.mark.parametrize("status", [200, 201, 250, 299, 600, 999])
async def test_a_reply_with_any_other_status_is_read(connect: Connect, status: int) -> None:
    async def answer(asked: PendingRequest) -> web.StreamResponse:
        body = dump(asked.reply(picture_part(await asked.paint())))
        assert asked.request.transport
        asked.request.transport.write(f"HTTP/1.1 {status} Odd\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        asked.request.transport.close()
        return web.Response()

    reply = await (await connect(QuickEmulator(then=answer))).generate_image(CALL)
    assert sniff(reply.picture[:16]) == "png"


async def test_a_reply_with_long_headers_is_read(connect: Connect) -> None:
    async def answer(asked: PendingRequest) -> web.Response:
        body = dump(asked.reply(picture_part(await asked.paint())))
        return json_response(body, 200, {"X-Added-By-A-Proxy": "x" * 60_000})

    assert (await (await connect(QuickEmulator(then=answer))).generate_image(CALL)).picture


@pytest.mark.parametrize("fault", [raw(200), raw(204), raw(205), raw(299), raw(200, b" \r\n")])
async def test_a_reply_without_a_body_is_bad_and_of_unknown_price(connect: Connect, fault: Responder) -> None:
    with pytest.raises(BadReply) as caught:
        await (await connect(QuickEmulator(then=fault))).generate_image(CALL)
    assert (caught.value.billed, caught.value.worth_retrying) == (None, False)


async def test_a_truncated_body_is_outcome_unknown_whatever_its_encoding(connect: Connect) -> None:
    async def answer(asked: PendingRequest) -> web.StreamResponse:
        body = gzip.compress(dump(asked.reply(picture_part(await asked.paint()))))
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
        assert asked.request.transport
        asked.request.transport.write(head.encode() + body[: len(body) // 2])
        asked.request.transport.close()
        return web.Response()

    with pytest.raises(OutcomeUnknown):
        await (await connect(QuickEmulator(then=answer))).generate_image(CALL)


@pytest.mark.parametrize(
    "headers", [["deflate, gzip, gzip"], ["deflate", "identity, gzip", "gzip"], [", deflate ,GZIP, gzip"]]
)
async def test_a_reply_that_was_compressed_more_than_once_is_read(connect: Connect, headers: list[str]) -> None:
    async def answer(asked: PendingRequest) -> web.Response:
        body = gzip.compress(gzip.compress(zlib.compress(dump(asked.reply(picture_part(await asked.paint()))))))
        return web.Response(body=body, headers=[("Content-Encoding", header) for header in headers])

    assert (await (await connect(QuickEmulator(then=answer))).generate_image(CALL)).picture


async def test_the_body_of_an_error_is_decompressed(connect: Connect) -> None:
    async def answer(asked: PendingRequest) -> web.Response:
        body = gzip.compress(dump({"error": {"code": 400, "message": "no such aspect"}}))
        return json_response(body, 400, {"Content-Encoding": "gzip"})

    with pytest.raises(GeminiRejected, match="no such aspect"):
        await (await connect(QuickEmulator(then=answer))).generate_image(CALL)


HIDDEN = f"\x1b[31m\u202e key={KEY} \x9b"
SHOWN = "\\u001b[31m\\u202e key=[key] \\u009b"
ESCAPED = "".join(f"\\u{ord(each):04X}" for each in KEY)


@pytest.mark.parametrize(
    "fault",
    [
        error(400, HIDDEN),
        error(429, HIDDEN),
        error(503, HIDDEN),
        error(500, "x" * 180 + KEY),
        raw(403, HIDDEN.encode(), "text/plain"),
        raw(400, f'{{"error": {{"message": "{ESCAPED}"}}}}'.encode()),
        raw(400, f'{{"error": {{"status": "{ESCAPED}"}}}}'.encode()),
        raw(400, f'{{"error": "{ESCAPED}, cut'.encode()),
        raw(500, f"{KEY[:9]}\n{KEY[9:]}".encode(), "text/plain"),
        raw(200, dump({"error": {"message": HIDDEN}})),
        raw(200, dump({"error": HIDDEN})),
        raw(200, dump({"promptFeedback": {"blockReason": "OTHER", "blockReasonMessage": HIDDEN}})),
        raw(200, dump({"promptFeedback": {"blockReason": HIDDEN}})),
        finished("SAFETY", HIDDEN),
        finished(HIDDEN),
        finished(KEY.upper()),
        finished("SAFETY", f"{KEY[:9]}\n{KEY[9:]}"),
        parts(lambda _: [{"text": KEY[:9]}, {"text": KEY[9:]}]),
        finished(HIDDEN, "x" * 190 + KEY),
        parts(lambda _: [{"text": HIDDEN}]),
        parts(lambda _: [{"text": "x" * 190 + KEY}]),
    ],
)
async def test_neither_the_key_nor_a_hidden_character_is_quoted(
    connect: Connect, fault: Responder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    gemini = await connect(QuickEmulator(then=fault), retry=0)
    with pytest.raises(GeminiError) as caught:
        await gemini.generate_image(CALL)
    assert caught.value.detail.isprintable()
    assert KEY[:8].lower() not in caught.value.detail.lower()
    assert ESCAPED[:24] not in caught.value.detail
    assert KEY not in caplog.text


async def test_no_password_of_a_url_is_quoted(connect: Connect) -> None:
    with pytest.raises(GeminiError, match=r"no way past http://\[user\]@proxy:3128"):
        await (await connect(QuickEmulator(then=error(400, "no way past http://user:pass@proxy:3128")))).generate_image(
            CALL
        )


async def test_the_usage_is_sanitized(connect: Connect) -> None:
    emulator = QuickEmulator(then=edited(lambda body: body["usageMetadata"].update({f"note {KEY}": [HIDDEN]})))
    reply = await (await connect(emulator)).generate_image(CALL)
    assert reply.usage
    assert reply.usage["note [key]"] == [SHOWN]


async def test_the_key_of_the_emulator_is_no_secret(connect: Connect) -> None:
    gemini = await connect(QuickEmulator(then=finished("SAFETY", "says the emulator")), local=True, api_key="emulator")
    with pytest.raises(GeminiError, match="says the emulator"):
        await gemini.generate_image(CALL)


async def test_an_unknown_host_is_unbilled() -> None:
    async with open_gemini(GeminiAccess(KEY, "http://no-such-host.invalid", retry=0)) as gemini:
        with pytest.raises(GeminiUnavailable) as caught:
            await gemini.generate_image(CALL)
    assert caught.value.billed is False


async def test_cookies_are_not_sent_back() -> None:
    cookies: list[str | None] = []

    async def answer(asked: PendingRequest) -> web.StreamResponse:
        cookies.append(asked.request.headers.get("Cookie"))
        response = await one_picture(asked)
        response.set_cookie("affinity", "a server")
        return response

    async with contextlib.AsyncExitStack() as stack:
        app = QuickEmulator(then=answer).create_app()
        [(_, port)] = await stack.enter_async_context(listening(app, "127.0.0.1", 0))
        # By name: a cookie jar ignores the cookies of an IP address.
        gemini = await stack.enter_async_context(open_gemini(GeminiAccess(KEY, f"http://localhost:{port}")))
        for _ in range(2):
            assert (await gemini.generate_image(CALL)).picture
    assert cookies == [None, None]
