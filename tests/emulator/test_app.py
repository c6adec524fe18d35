import asyncio
import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from google.genai import errors, types

from service.emulator import wire
from service.emulator.app import Emulator
from service.emulator.responders import PendingRequest, one_picture
from tests.emulator.helpers import KEY, MODEL, Connect, Serve, ask, config, drawn, picture_bytes
from tests.helpers import QuickEmulator

# Pictures


@pytest.mark.parametrize(
    ("ratio", "size", "pixels"),
    [("16:9", "1K", (1376, 768)), ("1:8", "1K", (384, 3072)), ("3:4", "2K", (1792, 2400)), ("1:1", None, (1024, 1024))],
)
async def test_a_picture_has_the_size_of_the_model(
    connect: Connect, ratio: str, size: str | None, pixels: tuple[int, int]
) -> None:
    picture = drawn(await ask(await connect(Emulator()), config=config(ratio, size)))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", pixels)
    picture.load()


async def test_a_reply_has_usage_model_and_id(connect: Connect) -> None:
    reply = await ask(await connect(QuickEmulator()), config=config("1:1", "2K"))
    assert reply.usage_metadata
    assert reply.usage_metadata.candidates_token_count == 1680
    assert reply.model_version == MODEL
    assert reply.response_id
    assert reply.candidates
    assert reply.candidates[0].finish_reason == types.FinishReason.STOP


async def test_equal_requests_get_different_pictures_and_an_equal_seed_the_same_ones(connect: Connect) -> None:
    first, again, elsewhere = await connect(Emulator()), await connect(Emulator()), await connect(Emulator(seed=1))
    ours = [drawn(await ask(first)).tobytes() for _ in range(2)]
    assert len(set(ours)) == 2
    assert [drawn(await ask(again)).tobytes() for _ in range(2)] == ours
    assert drawn(await ask(elsewhere)).tobytes() not in ours


async def test_a_reference_is_recorded_and_shows_in_the_picture(connect: Connect) -> None:
    emulator, data = Emulator(), picture_bytes(kind="JPEG")
    client = await connect(emulator)
    picture = drawn(await ask(client, "My awesome video", types.Part.from_bytes(data=data, mime_type="image/jpeg")))
    red, green, blue = picture.resize((1, 1)).convert("RGB").getpixel((0, 0))  # type: ignore[misc]  # a tuple, of several bands
    assert red > 2 * max(green, blue)
    [reference] = emulator.received[0].references
    assert reference.mime_type == "image/jpeg"
    assert reference.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("reference", "pixels"),
    [
        (picture_bytes((160, 90)), (1376, 768)),
        (picture_bytes((90, 160)), (768, 1376)),
        (
            picture_bytes(
                (160, 90), kind="JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"
            ),
            (768, 1376),
        ),
    ],
    ids=["wide", "tall", "turned"],
)
async def test_without_a_ratio_the_picture_follows_the_reference(
    connect: Connect, reference: bytes, pixels: tuple[int, int]
) -> None:
    mime_type = "image/png" if reference.startswith(b"\x89PNG") else "image/jpeg"
    client = await connect(QuickEmulator())
    reply = await ask(client, "Hi", types.Part.from_bytes(data=reference, mime_type=mime_type), config=config())
    assert drawn(reply).size == pixels


async def test_requests_are_recorded(connect: Connect) -> None:
    emulator = QuickEmulator()
    await ask(await connect(emulator, api_version="v1beta"), "My awesome video", config=config("21:9", "1K"))
    [received] = emulator.received
    assert (received.version, received.model, received.prompt) == ("v1beta", MODEL, "My awesome video")
    assert (received.aspect_ratio, received.image_size, received.modalities) == ("21:9", "1K", ("IMAGE",))
    assert received.headers["x-server-timeout"] == "30"


async def test_the_counters_are_readable_over_http_and_hold_no_key(aiohttp_server: Serve) -> None:
    server = await aiohttp_server(Emulator(then="empty_object").create_app())
    await post(server, b'{"contents": [{"parts": [{"text": "Hi"}]}]}', {"x-goog-api-key": KEY})
    async with aiohttp.ClientSession() as session, session.get(server.make_url("/emulator/stats")) as response:
        stats = await response.json()
    assert (stats["requests"], stats["in_flight"], stats["peak"]) == (1, 0, 1)
    assert stats["received"][0]["prompt"] == "Hi"
    assert KEY not in json.dumps(stats)


async def test_the_peak_counts_requests_that_wait_together(connect: Connect) -> None:
    together = asyncio.Barrier(4)

    async def answer(call: PendingRequest) -> web.StreamResponse:
        await together.wait()
        return await one_picture(call)

    emulator = QuickEmulator(then=answer)
    client = await connect(emulator)
    replies = await asyncio.gather(*(ask(client) for _ in range(4)))
    assert (emulator.requests, emulator.peak, emulator.in_flight) == (4, 4, 0)
    assert len({drawn(reply).tobytes() for reply in replies}) == 4


async def test_the_delay_is_honoured(connect: Connect) -> None:
    emulator = Emulator(delay_seconds=3600, then="empty_object")
    client = await connect(emulator, timeout=100, headers={"X-Server-Timeout": "10"})
    with pytest.raises(TimeoutError):
        await ask(client)
    assert emulator.requests == 1


# Refusals like Google's


async def test_a_model_outside_the_table_works(connect: Connect) -> None:
    reply = await ask(await connect(QuickEmulator()), model="gemini-9-next")
    assert drawn(reply).size == (384, 3072)


async def test_a_retired_model_is_not_found(connect: Connect) -> None:
    with pytest.raises(errors.ClientError) as caught:
        await ask(await connect(Emulator()), model="gemini-2.5-flash-image")
    assert caught.value.code == 404


async def test_a_wrong_key_is_refused_with_its_reason(connect: Connect) -> None:
    with pytest.raises(errors.ClientError) as caught:
        await ask(await connect(Emulator(api_key="another")))
    assert caught.value.code == 400
    assert caught.value.details["error"]["details"][0]["reason"] == "API_KEY_INVALID"


@pytest.mark.parametrize(
    ("model", "ratio", "size"),
    [
        ("gemini-3.1-flash-lite-image", "16:9", "2K"),
        ("gemini-3-pro-image", "1:8", "1K"),
        (MODEL, "16:9", "1k"),
        (MODEL, "7:5", "1K"),
        ("gemini-9-next", "16:9", "8K"),
    ],
)
async def test_an_option_that_the_model_does_not_support_is_refused(
    connect: Connect, model: str, ratio: str, size: str
) -> None:
    with pytest.raises(errors.ClientError, match="not supported") as caught:
        await ask(await connect(Emulator()), model=model, config=config(ratio, size))
    assert caught.value.status == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("data", "mime_type"),
    [
        (picture_bytes(kind="JPEG"), "image/png"),
        (picture_bytes(kind="GIF"), "image/gif"),
        (b"no picture", "image/png"),
        (picture_bytes()[:20], "image/png"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xc3\x50\0\0\xc3\x50\x08\2\0\0\0\x2d\x26\x2b\x75", "image/png"),
    ],
    ids=["lying type", "unsupported type", "no picture", "cut header", "50,000 pixels square"],
)
async def test_a_bad_reference_is_refused(connect: Connect, data: bytes, mime_type: str) -> None:
    with pytest.raises(errors.ClientError) as caught:
        await ask(await connect(Emulator()), "Hi", types.Part.from_bytes(data=data, mime_type=mime_type))
    assert caught.value.status == "INVALID_ARGUMENT"


def test_a_reference_over_seven_megabytes_is_refused() -> None:
    data = base64.b64encode(picture_bytes() + bytes(wire.MAX_REFERENCE_BYTES)).decode()
    body = {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": data}}]}]}
    with pytest.raises(wire.ApiError, match="at most"):
        wire.read("v1", MODEL, {}, wire.dump(body))


async def test_too_many_references_are_refused(connect: Connect) -> None:
    part = types.Part.from_bytes(data=picture_bytes(), mime_type="image/png")
    with pytest.raises(errors.ClientError, match="At most 14"):
        await ask(await connect(Emulator()), "Hi", *[part] * 15)


async def test_a_deadline_under_ten_seconds_is_refused(connect: Connect) -> None:
    with pytest.raises(errors.ClientError, match="too short"):
        await ask(await connect(Emulator(), timeout=9_000))


async def post(server: TestServer, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    url = server.make_url(f"/v1/models/{MODEL}:generateContent")
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as response:
        return response.status, await response.json()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        b"{}",
        b'{"contents": 7}',
        b'{"contents": [{"parts": [{"text": "\\ud83d"}]}]}',
        b'{"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "!"}}]}]}',
        b'{"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": 7}}]}]}',
    ],
)
async def test_a_malformed_request_is_refused(aiohttp_server: Serve, body: bytes) -> None:
    status, answer = await post(await aiohttp_server(Emulator().create_app()), body, {"x-goog-api-key": KEY})
    assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")


async def test_a_missing_key_is_refused(aiohttp_server: Serve) -> None:
    status, answer = await post(await aiohttp_server(Emulator().create_app()), b"{}")
    assert (status, answer["error"]["status"]) == (403, "PERMISSION_DENIED")


@pytest.mark.parametrize(
    "names", [("inlineData", "mimeType"), ("inline_data", "mime_type"), ("inlineData", "mime_type")]
)
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
async def test_both_spellings_and_both_alphabets_are_read(
    aiohttp_server: Serve, names: tuple[str, str], encode: Callable[[bytes], bytes]
) -> None:
    emulator = Emulator(then="empty_object")
    data = picture_bytes((40, 30), "#fbffbe", "JPEG") + b"\xfb\xff\xbe"
    part = {names[0]: {names[1]: "image/jpeg", "data": encode(data).decode()}}
    body = {"contents": [{"parts": [part]}], "generation_config": {"imageConfig": {"aspect_ratio": "4:1"}}}
    status, _ = await post(
        await aiohttp_server(emulator.create_app()), json.dumps(body).encode(), {"x-goog-api-key": KEY}
    )
    assert status == 200
    assert emulator.received[0].references[0].sha256 == hashlib.sha256(data).hexdigest()
    assert emulator.received[0].aspect_ratio == "4:1"
