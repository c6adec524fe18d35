"""JSON and urlencoded bodies: the same request as a form, within the same limits, and from the same origins."""

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.server.keys import ADMISSION
from service.server.receiving import MAX_SMALL_BODY
from tests.conftest import Serve
from tests.helpers import Answer, QuickEmulator, Running, assert_problem, form, read_answer, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

JSON = "application/json"
URLENCODED = "application/x-www-form-urlencoded"
GOOD = {JSON: b'{"script": "x", "formats": "webp", "width": 16}', URLENCODED: b"script=x&formats=webp&width=16"}
# A body of this type that is as long as may be.
STUFFED = {JSON: (b'{"script":"', b'"}'), URLENCODED: (b"script=", b"")}
both = pytest.mark.parametrize("kind", GOOD)


def stuffed(kind: str, size: int) -> bytes:
    start, end = STUFFED[kind]
    return start + b"x" * (size - len(start) - len(end)) + end


def head(kind: str, *headers: str, path: str = "/api/thumbnails") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", *headers, "", ""]).encode()


async def send(service: Running, kind: str, body: Any, path: str = "/api/thumbnails", **headers: str) -> Answer:
    return await service.post_body(path, body, kind, {name.replace("_", "-"): text for name, text in headers.items()})


async def test_the_same_fields_are_one_request_in_every_type_of_body(serve: Serve) -> None:
    service = await serve()
    first = await send(
        service,
        JSON,
        b'{"script": "50% \\ud83d\\ude00 & more", "count": 1.0, "blend": 0.50, "formats": ["webp", "png"],'
        b' "allow_resize": true, "max_bytes": {"webp": 4e5, "png": 500000}, "matte": null, "width": 64}',
        Idempotency_Key="one",
    )
    assert first.status == 200, first.body
    texts = {"script": "50% 😀 & more", "count": "1", "blend": "0.5", "allow_resize": "true", "width": "64"}
    budgets = ("max_bytes", "webp:400000,png:500000")
    lists = [("formats", "webp"), ("matte", ""), ("formats", "png")]
    urlencoded = (
        "width=64&formats=webp&script=50%25+%F0%9F%98%80+%26%20more&count=1&blend=0.5&formats=png&allow_resize=true"
        "&max_bytes=webp:400000%2Cpng:500000&matte="
    )
    with service.nothing_spent_or_left():
        again = [
            await send(service, URLENCODED, urlencoded.encode(), Idempotency_Key="one"),
            await send(service, f"{URLENCODED}; charset=UTF-8", urlencoded.encode(), Idempotency_Key="one"),
            await service.post("/api/thumbnails", *texts.items(), budgets, *lists, headers={"Idempotency-Key": "one"}),
            await send(service, JSON, json.dumps(texts | dict([budgets, ("formats", "webp,png")])),
                       Idempotency_Key="one"),
        ]  # fmt: skip
        other = await send(service, JSON, json.dumps(texts | {"allow_resize": "on"}), Idempotency_Key="one")
    for answer in again:
        assert (answer.status, answer.headers["Idempotency-Replayed"]) == (200, "true"), answer.body
        assert answer.json == first.json
    assert_problem(other, 422, "idempotency_mismatch")
    [variation] = first.json["variations"]
    assert "50% 😀 & more" in variation["metadata"]["prompt"]
    assert [*variation["exports"]] == ["png", "webp"]


@both
async def test_a_kept_picture_is_exported_again(service: Running, kind: str) -> None:
    made = await send(service, kind, GOOD[kind])
    path = f"/api/thumbnails/{made.json['request_id']}/variations/var-1/exports"
    bodies = {JSON: b'{"width": 32, "formats": ["jpeg", "png"]}', URLENCODED: b"width=32&formats=jpeg&formats=png"}
    again = await send(service, kind, bodies[kind], path)
    assert again.status == 200, again.body
    assert {name: each["width"] for name, each in again.json["exports"].items()} == {"png": 32, "jpeg": 32}
    assert [*(await send(service, kind, {JSON: b"{}", URLENCODED: b""}[kind], path)).json["exports"]] == ["webp"]
    with service.nothing_spent_or_left():
        file = await send(service, kind, {JSON: b'{"base": "x"}', URLENCODED: b"base=x"}[kind], path)
        count = await send(service, kind, {JSON: b'{"count": 1}', URLENCODED: b"count=1"}[kind], path)
    assert_problem(file, 422, "invalid_field", "base", "multipart/form-data")
    assert_problem(count, 422, "unknown_field", "nearest")


@both
async def test_an_uploaded_picture_is_multipart_only(service: Running, kind: str) -> None:
    with service.nothing_spent_or_left():
        answer = await send(service, kind, GOOD[kind], "/api/exports")
    assert_problem(answer, 415, "unsupported_media_type", "multipart/form-data")
    assert kind not in answer.json["detail"]


async def test_the_types_that_are_taken_are_named(service: Running) -> None:
    answer = await send(service, "text/plain", b"script=x")
    assert_problem(answer, 415, "unsupported_media_type", "multipart/form-data", JSON, URLENCODED)


@pytest.mark.parametrize(
    ("kind", "body", "status", "code"),
    [
        (JSON, b"", 400, "malformed_body"),
        (JSON, b'{"script": "x"', 400, "malformed_body"),
        (JSON, b'{"script": "x", "width": NaN}', 400, "malformed_body"),
        (JSON, b'["script"]', 400, "malformed_body"),
        (JSON, b"[" * 1_000_000, 400, "malformed_body"),
        (JSON, b'{"a":' * 200_000, 400, "malformed_body"),
        (JSON, b'{"script": "x", "script": "x"}', 400, "duplicate_field"),
        (JSON, b'{"script": "x", "max_bytes": {"png": 1, "png": 2}}', 400, "duplicate_field"),
        (JSON, b'{"script": "\\ud800"}', 400, "not_utf8"),
        (JSON, b'{"script": "\xff"}', 400, "not_utf8"),
        (JSON, b"{}", 422, "missing_field"),
        (JSON, b'{"script": null}', 422, "missing_field"),
        (JSON, b'{"script": "x", "width": 1E400}', 422, "invalid_field"),
        (JSON, b'{"script": "x", "width": %s}' % (b"1" * 1_000_000), 422, "invalid_field"),
        (JSON, b'{"script": "x", "width": 64.5}', 422, "invalid_field"),
        (JSON, b'{"script": "x", "count": true}', 422, "invalid_field"),
        (JSON, b'{"script": "x", "formats": {"png": 1}}', 422, "invalid_field"),
        (JSON, b'{"script": "x", "image": "data:image/png;base64,"}', 422, "invalid_field"),
        (JSON, b'{"script": "x", "quality": 9}', 422, "unknown_field"),
        (URLENCODED, b"", 422, "missing_field"),
        (URLENCODED, b'{"script": "x"}', 400, "malformed_body"),
        (URLENCODED, b"script=50% off", 400, "malformed_body"),
        (URLENCODED, b"script=%ff", 400, "not_utf8"),
        (URLENCODED, b"script=x&script=y", 400, "duplicate_field"),
        (URLENCODED, b"script=x&image=y", 422, "invalid_field"),
    ],
    ids=lambda value: str(value)[:50],
)
async def test_a_bad_body_is_refused(service: Running, kind: str, body: bytes, status: int, code: str) -> None:
    with service.nothing_spent_or_left():
        assert_problem(await send(service, kind, body), status, code)


@both
async def test_a_body_of_a_mebibyte_is_read_and_a_byte_more_is_413(service: Running, kind: str) -> None:
    async def unannounced(body: bytes) -> AsyncIterator[bytes]:
        yield body[:500_000]
        yield body[500_000:]

    with service.nothing_spent_or_left():
        fits = await send(service, kind, stuffed(kind, MAX_SMALL_BODY))
        over = await send(service, kind, unannounced(stuffed(kind, MAX_SMALL_BODY + 1)))
        said = await service.raw(head(kind, f"Content-Length: {MAX_SMALL_BODY + 1}", "Expect: 100-continue"))
    assert_problem(fits, 422, "invalid_field", "script is too long")
    assert_problem(over, 413, "too_large", str(MAX_SMALL_BODY))
    assert_problem(said, 413, "too_large", str(MAX_SMALL_BODY))


@both
async def test_what_holds_for_forms_before_their_body_holds_here(service: Running, kind: str) -> None:
    with service.nothing_spent_or_left():
        query = await send(service, kind, GOOD[kind], "/api/thumbnails?count=2")
        body = gzip.compress(GOOD[kind])
        encoded = await service.raw(head(kind, "Content-Encoding: gzip", f"Content-Length: {len(body)}") + body)
        charset = await send(service, f"{kind}; charset=iso-8859-1", GOOD[kind])
    assert_problem(query, 422, "unknown_field", "query")
    assert_problem(encoded, 415, "unsupported_encoding")
    assert_problem(charset, 415, "unsupported_media_type", "UTF-8")


@pytest.mark.parametrize("kind", [f"{JSON};charset=utf-8", f'{JSON}; charset="UTF-8"', "Application/JSON; x=y"])
async def test_the_ways_to_write_a_content_type(service: Running, kind: str) -> None:
    assert (await send(service, kind, GOOD[JSON])).status == 200


@both
async def test_a_body_that_stops_coming_is_408(serve: Serve, kind: str) -> None:
    service = await serve(upload_stall_seconds=0.2)
    with service.nothing_spent_or_left():
        answer = await service.raw(head(kind, "Content-Length: 1000") + GOOD[kind])
    assert_problem(answer, 408, "body_timeout")
    assert answer.headers["Connection"] == "close"


@both
async def test_a_drain_interrupts_a_body_that_is_being_read(serve: Serve, kind: str) -> None:
    service = await serve()
    admission = service.app[ADMISSION]
    async with service.connected() as (reader, writer):
        writer.write(head(kind, "Content-Length: 1000") + GOOD[kind])
        await until(lambda: len(admission.bodies) == 1)
        admission.drain()
        assert_problem(await read_answer(reader), 503, "draining")
    assert_problem(await send(service, kind, GOOD[kind]), 503, "draining")


@both
async def test_only_so_many_bodies_are_read_at_once(serve: Serve, kind: str) -> None:
    service = await serve(max_requests=1, upload_stall_seconds=20)
    async with service.connected() as (slow, first), service.connected() as (reader, second):
        first.write(head(kind, "Content-Length: 1000") + GOOD[kind])
        await until(lambda: len(service.app[ADMISSION].bodies) == 1)
        second.write(head(kind, "Expect: 100-continue", f"Content-Length: {len(GOOD[kind])}"))
        # The slowest gives way to the one that waits.
        assert_problem(await read_answer(slow), 408, "body_timeout", "slowest")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        second.write(GOOD[kind])
        assert (await read_answer(reader)).status == 200


@both
async def test_continue_is_said_only_to_those_let_in(serve: Serve, kind: str) -> None:
    service = await serve()
    expecting = head(kind, "Expect: 100-continue", f"Content-Length: {len(GOOD[kind])}")
    async with service.connected() as (reader, writer):
        writer.write(expecting)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(GOOD[kind])
        assert (await read_answer(reader)).status == 200
    guarded = await serve(QuickEmulator(), api_keys="k" * 16)
    assert_problem(await guarded.raw(expecting), 401, "unauthorized")


@pytest.mark.parametrize("kind", [*GOOD, "text/plain"])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "https://localhost"])
async def test_no_web_page_can_spend_through_a_body_that_needs_no_preflight(
    service: Running, kind: str, origin: str
) -> None:
    body = GOOD.get(kind, GOOD[JSON])
    with service.nothing_spent_or_left():
        answer = await send(service, kind, body, Origin=origin)
        rebound = await send(service, kind, body, Host="evil.example", Origin="http://evil.example")
    assert_problem(answer, 403, "cross_origin")
    assert_problem(rebound, 403, "cross_origin")


@both
async def test_a_page_of_the_service_itself_may_send_them(service: Running, kind: str) -> None:
    assert (await send(service, kind, GOOD[kind], Origin=service.url)).status == 200


async def test_with_keys_a_simple_request_of_a_web_page_lacks_one(serve: Serve) -> None:
    service = await serve(api_keys="k" * 16)
    for kind, body in GOOD.items():
        assert_problem(await send(service, kind, body, Origin="https://evil.example"), 401, "unauthorized")


async def test_the_same_list_in_a_form(service: Running) -> None:
    parts = [("script", "x"), ("width", "16"), ("formats", "webp"), ("formats", "png,webp")]
    answer = await service.post_body("/api/thumbnails", form(*parts))
    assert [*answer.json["variations"][0]["exports"]] == ["png", "webp"]
