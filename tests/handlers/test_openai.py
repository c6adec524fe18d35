"""The OpenAI images API, asked by the official client: pictures, models, fields, and each class of error."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio

from service.gemini.models import MODELS
from service.server.keys import ADMISSION
from service.store.local import StoredFile
from tests.conftest import Serve
from tests.handlers.openai_clients import KEY, PROMPT, assert_error, client_of, pictures
from tests.helpers import CONTENT_TYPE, QuickEmulator, Running, decoded, form, picture_bytes, until, until_async, upload

pytestmark = pytest.mark.asyncio(loop_scope="session")

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
JSON = "application/json"
RED = picture_bytes()


@pytest_asyncio.fixture(loop_scope="session")
async def client(service: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(service) as client:
        yield client


async def test_a_prompt_becomes_a_png_in_base64(client: openai.AsyncOpenAI) -> None:
    answer = await client.images.generate(prompt=PROMPT)
    [picture] = pictures(answer)
    assert (picture.format, picture.size) == ("PNG", (1280, 720))
    assert (answer.size, answer.quality, answer.background, answer.output_format) == (
        "1280x720",
        "medium",
        "opaque",
        "png",
    )
    assert answer.usage
    assert answer.usage.output_tokens_details
    assert (answer.usage.output_tokens_details.image_tokens, answer.usage.input_tokens_details.image_tokens) == (
        1120,
        0,
    )
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


async def test_the_synchronous_client_gets_pictures_too(service: Running) -> None:
    def generate() -> Any:
        with openai.OpenAI(base_url=f"{service.url}/v1", api_key=KEY, max_retries=0) as client:
            return client.images.generate(prompt=PROMPT, output_format="jpeg", size="512x512")

    [picture] = pictures(await asyncio.to_thread(generate))
    assert (picture.format, picture.size) == ("JPEG", (512, 512))


async def test_tokens_are_summed_over_the_pictures(client: openai.AsyncOpenAI) -> None:
    one, three = [await client.images.generate(prompt=PROMPT, n=n, size="64x64") for n in (1, 3)]
    assert len(pictures(three)) == 3
    assert one.usage
    assert three.usage
    assert three.usage.total_tokens == 3 * one.usage.total_tokens


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "avif"])
async def test_only_the_asked_format_is_exported(service: Running, client: openai.AsyncOpenAI, kind: Any) -> None:
    before = set(service.area("output"))
    answer = await client.images.generate(prompt=PROMPT, output_format=kind, size="120x50")
    [picture] = pictures(answer)
    assert (picture.format, picture.size, answer.size) == (kind.upper(), (120, 50), "120x50")
    assert len(set(service.area("output")) - before) == 1


async def test_a_request_is_one_of_the_ledger_and_its_raw_is_kept(service: Running, client: openai.AsyncOpenAI) -> None:
    await client.images.generate(prompt="Seen elsewhere", size="64x64")
    [newest] = (await service.get("/api/thumbnails?limit=1")).json["requests"]
    assert (newest["script"], newest["state"], newest["mode"]) == ("Seen elsewhere", "succeeded", "sync")
    raw = await service.get(f"/api/thumbnails/{newest['request_id']}/variations/var-1/raw")
    assert decoded(raw.body).size == (1024, 1024)


async def test_a_link_is_absolute_and_leads_to_the_file(service: Running, client: openai.AsyncOpenAI) -> None:
    answer = await client.images.generate(prompt=PROMPT, response_format="url", size="64x64")
    assert answer.data
    url = answer.data[0].url
    assert url
    assert url.startswith(f"{service.url}/static/output/")
    assert decoded((await service.get(url)).body).size == (64, 64)


async def test_links_begin_with_the_public_url_or_the_host_that_was_asked(serve: Serve) -> None:
    body = json.dumps({"prompt": PROMPT, "response_format": "url", "size": "64x64"})
    for public, host, begin in [("https://pictures.example", "127.0.0.1", "https://pictures.example/static/"),
                                (None, "localhost:1234", "http://localhost:1234/static/")]:  # fmt: skip
        service = await serve(public_url=public)
        answer = await service.post_body(GENERATIONS, body, JSON, {"Host": host})
        assert answer.json["data"][0]["url"].startswith(begin)


@pytest.mark.parametrize(
    ("fields", "model", "image_size", "quality"),
    [
        ({}, "gemini-nano-banana-2.1", "1K", "medium"),
        ({"model": "gpt-image-2", "quality": "standard"}, "gemini-nano-banana-2.1", "1K", "medium"),
        ({"model": "dall-e-3", "quality": "hd"}, "gemini-nano-banana-2.1", "2K", "high"),
        ({"model": "gemini-3-pro-image", "quality": "xhigh"}, "gemini-3-pro-image", "4K", "max"),
        ({"model": "gemini-3.1-flash-lite-image", "quality": "max"}, "gemini-3.1-flash-lite-image", "1K", "medium"),
    ],
)
async def test_quality_is_the_size_that_the_model_draws(
    service: Running, client: openai.AsyncOpenAI, fields: Any, model: str, image_size: str, quality: str
) -> None:
    answer = await client.images.generate(prompt=PROMPT, size="64x64", **fields)
    [call] = (await service.get("/api/thumbnails?limit=1")).json["requests"][0]["calls"]
    assert (call["model"], call["image_size"], answer.quality) == (model, image_size, quality)


async def test_fields_without_a_meaning_and_null_are_accepted(client: openai.AsyncOpenAI) -> None:
    ignored: Any = {"moderation": "low", "user": {}, "style": None, "input_fidelity": {"any": ["thing"]}}
    nothing: Any = {"n": None, "size": None, "quality": None, "stream": None, "response_format": None}
    answer = await client.images.generate(
        prompt=PROMPT, extra_body=ignored | nothing | {"partial_images": 3, "background": "opaque"}
    )
    assert answer.size == "1280x720"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"prompt": " "}, "missing_field", "prompt"),
        ({"prompt": "x" * 32_001}, "invalid_field", "prompt"),
        ({"n": 5}, "invalid_field", "n"),
        ({"n": 1.5}, "invalid_field", "n"),
        ({"n": [1]}, "invalid_field", "n"),
        ({"model": "No Model"}, "invalid_field", "model"),
        ({"size": "8193x1"}, "invalid_field", "size"),
        ({"size": "0x9"}, "invalid_field", "size"),
        ({"size": "8000x8000"}, "invalid_field", "size"),
        ({"size": "5000x5000", "output_format": "avif"}, "invalid_field", "size"),
        ({"quality": "best"}, "invalid_field", "quality"),
        ({"output_format": "jpg"}, "invalid_field", "output_format"),
        ({"output_compression": 90}, "invalid_field", "output_compression"),
        ({"output_format": "webp", "output_compression": 101}, "invalid_field", "output_compression"),
        ({"background": "transparent"}, "invalid_field", "background"),
        ({"response_format": "hex"}, "invalid_field", "response_format"),
        ({"stream": True, "response_format": "url"}, "invalid_field", "response_format"),
        ({"partial_images": 4}, "invalid_field", "partial_images"),
        *(({name: "1"}, "unknown_parameter", name) for name in ("mask", "markup", "svg", "frame_count", "count")),
    ],
)
async def test_a_bad_field_is_400_and_costs_nothing(service: Running, fields: Any, code: str, param: str) -> None:
    with service.nothing_spent_or_left():
        answer = await service.post_body(GENERATIONS, json.dumps({"prompt": PROMPT} | fields), JSON)
    assert_error(answer, 400, "invalid_request_error", code, param)
    assert answer.headers["x-should-retry"] == "false"


async def test_an_unknown_expectation_is_refused_in_the_form_of_the_api(service: Running) -> None:
    answer = await service.ask("POST", GENERATIONS, headers={"Expect": "the-moon"})
    assert_error(answer, 417, "invalid_request_error", "expectation_failed")


async def test_the_models_are_those_of_the_table_and_the_configured_one(serve: Serve) -> None:
    service = await serve(gemini_model="gemini-of-tomorrow")
    async with client_of(service) as client:
        listed = [model async for model in client.models.list()]
        assert [model.id for model in listed] == [*MODELS, "gemini-of-tomorrow"]
        assert {(model.owned_by, model.object, model.created) for model in listed} == {("google", "model", 1795305600)}
        assert (await client.models.retrieve("gemini-of-tomorrow")).id == "gemini-of-tomorrow"
        with pytest.raises(openai.NotFoundError) as refused:
            await client.models.retrieve("gpt-image-1")
    assert (refused.value.code, refused.value.type) == ("not_found", "invalid_request_error")


@pytest.mark.parametrize(
    ("fault", "error", "kind", "code", "retry"),
    [
        ("blocked_safety", openai.BadRequestError, "image_generation_user_error", "moderation_blocked", "false"),
        ("text_only", openai.BadRequestError, "invalid_request_error", "no_image", "false"),
        ("daily_quota", openai.RateLimitError, "rate_limit_error", "quota_exhausted", "true"),
        ("drop", openai.InternalServerError, "server_error", "outcome_unknown", "false"),
        ("bad_key", openai.InternalServerError, "server_error", "gemini_auth", "false"),
    ],
)
async def test_a_refusal_of_gemini_is_the_error_that_clients_know(
    serve_all: Serve, fault: str, error: type[openai.APIStatusError], kind: str, code: str, retry: str
) -> None:
    service = await serve_all(QuickEmulator(faults=[fault]))
    async with client_of(service) as client:
        with pytest.raises(error) as refused:
            await client.images.generate(prompt=PROMPT)
    assert (refused.value.type, refused.value.code, refused.value.param) == (kind, code, None)
    assert refused.value.response.headers["x-should-retry"] == retry
    assert refused.value.request_id


async def test_keys_hosts_routes_and_methods_are_refused_in_the_same_form(serve: Serve) -> None:
    service = await serve(api_keys=KEY)
    async with client_of(service, api_key="not-the-right-key") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()
    bearer = {"Authorization": f"Bearer {KEY}"}
    assert_error(await service.get("/v1/nothing"), 401, "authentication_error", "unauthorized")
    assert_error(await service.get("/v1"), 401, "authentication_error", "unauthorized")
    answer = await service.ask("GET", "/v1/nothing", headers=bearer)
    assert_error(answer, 404, "invalid_request_error", "not_found")
    answer = await service.ask("DELETE", GENERATIONS, headers=bearer)
    assert_error(answer, 405, "invalid_request_error", "method_not_allowed")
    assert answer.headers["Allow"] == "POST"
    anonymous = await serve()
    answer = await anonymous.ask("GET", "/v1/models", headers={"Host": "evil.example"})
    assert_error(answer, 403, "permission_error", "cross_origin")
    answer = await service.get("/apis")
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "kind", "code", "param"),
    [
        (b"{", JSON, "malformed_body", None),
        (b'{"prompt": "a", "prompt": "b"}', JSON, "duplicate_field", "prompt"),
        (b'{"prompt": "\\ud800"}', JSON, "not_utf8", None),
        (b" " * (1024 * 1024 + 1), JSON, "too_large", None),
        (form(("prompt", PROMPT)), CONTENT_TYPE, "unsupported_media_type", None),
    ],
)
async def test_a_bad_body_is_400(service: Running, body: bytes, kind: str, code: str, param: str | None) -> None:
    answer = await service.post_body(GENERATIONS, body, kind)
    assert_error(answer, 400, "invalid_request_error", code, param)


async def test_a_query_parameter_is_named(service: Running) -> None:
    for method, path in (("GET", "/v1/models"), ("POST", GENERATIONS)):
        answer = await service.ask(method, f"{path}?limit=3")
        assert_error(answer, 400, "invalid_request_error", "unknown_parameter", "limit")


async def test_a_full_service_may_be_asked_again(serve: Serve) -> None:
    service = await serve(max_requests=1)
    with await service.app[ADMISSION].enter("thumbnails"):
        answer = await service.post_body(GENERATIONS, json.dumps({"prompt": PROMPT}), JSON)
    assert_error(answer, 503, "server_error", "busy")
    assert (answer.headers["x-should-retry"], answer.headers["Retry-After"]) == ("true", "5")


async def test_an_edit_draws_with_the_picture_as_reference_and_does_not_blend_it(
    service: Running, client: openai.AsyncOpenAI
) -> None:
    answer = await client.images.edit(image=RED, prompt=PROMPT, size="64x64")
    [picture] = pictures(answer)
    assert answer.usage
    assert answer.usage.input_tokens_details.image_tokens > 0
    request = (await service.get("/api/thumbnails?limit=1")).json["requests"][0]
    [variation] = request["variations"]
    assert variation["metadata"]["digital_source_type"] == "trainedAlgorithmicMedia"
    path = f"/api/thumbnails/{request['request_id']}/variations/var-1"
    raw = decoded((await service.get(f"{path}/raw")).body)
    again = (await service.post(f"{path}/exports")).json
    assert list(again["exports"]) == ["png"]
    exported = decoded((await service.get(again["exports"]["png"]["url"])).body)
    assert picture.getpixel((32, 32)) == exported.getpixel((32, 32)) == raw.getpixel((512, 512))


@pytest.mark.parametrize("name", ["image", "image[]"])
async def test_the_picture_of_an_edit_has_one_of_two_names(service: Running, name: str) -> None:
    answer = await service.post(EDITS, upload(RED, name), ("prompt", PROMPT), ("n", "1"), ("size", "64x64"))
    assert answer.status == 200
    assert len(answer.json["data"]) == 1


@pytest.mark.parametrize(
    ("parts", "code", "param"),
    [
        ([], "missing_field", "image"),
        ([upload(RED), upload(RED)], "duplicate_field", "image"),
        ([upload(RED, "image[]"), upload(RED, "image[]")], "duplicate_field", "image"),
        ([upload(RED), upload(RED, "image[]")], "duplicate_field", "image"),
        ([upload(RED), upload(RED, "mask")], "unknown_parameter", "mask"),
        ([upload(b"no picture" * 9)], "unsupported_image", "image"),
        ([upload(RED[:60])], "undecodable", "image"),
        ([upload(RED), ("prompt", "again")], "duplicate_field", "prompt"),
        ([upload(RED), ("n", "0")], "invalid_field", "n"),
    ],
)
async def test_a_bad_edit_is_400_and_costs_nothing(service: Running, parts: Any, code: str, param: str) -> None:
    with service.nothing_spent_or_left():
        answer = await service.post(EDITS, ("prompt", PROMPT), *parts)
    assert_error(answer, 400, "invalid_request_error", code, param)


async def test_an_edit_in_json_is_400(service: Running) -> None:
    answer = await service.post_body(EDITS, json.dumps({"prompt": PROMPT}), JSON)
    assert_error(answer, 400, "invalid_request_error", "unsupported_media_type")


async def test_the_client_sends_one_picture_in_a_list_but_not_two(client: openai.AsyncOpenAI) -> None:
    answer = await client.images.edit(image=[("a.png", RED)], prompt="x" * 5000, size="64x64")
    assert len(pictures(answer)) == 1
    with pytest.raises(openai.BadRequestError) as refused:
        await client.images.edit(image=[("a.png", RED), ("b.png", RED)], prompt=PROMPT)
    assert refused.value.param == "image"


async def test_a_request_that_was_cancelled_is_a_conflict(serve: Serve) -> None:
    service = await serve(QuickEmulator(then="unavailable"), gemini_retry_seconds=60)
    async with client_of(service) as client:
        wanted = asyncio.create_task(client.images.generate(prompt=PROMPT))
        await until(lambda: service.emulator.requests)
        [request] = (await service.get("/api/thumbnails")).json["requests"]

        async def cancelled() -> bool:
            await service.ask("POST", f"/api/thumbnails/{request['request_id']}/cancel")
            return wanted.done()

        await until_async(cancelled)
        with pytest.raises(openai.ConflictError) as refused:
            await wanted
    assert (refused.value.code, refused.value.response.headers["x-should-retry"]) == ("cancelled", "true")


async def test_a_web_page_of_another_origin_is_refused(service: Running) -> None:
    async with client_of(service, default_headers={"Origin": "https://evil.example"}) as client:
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await client.images.generate(prompt=PROMPT)
    assert (refused.value.type, refused.value.code) == ("permission_error", "cross_origin")


@pytest.mark.parametrize("target", ["/v1/models", "/v1?x", "http://localhost/v1/models"])
async def test_a_request_that_is_no_http_is_refused_in_the_same_form(service: Running, target: str) -> None:
    answer = await service.raw(f"GET {target} HTTP/1.1\r\nHost: a\r\nHost : b\r\n\r\n".encode())
    assert json.loads(answer.body)["error"]["code"] == "malformed_request"
    assert answer.headers["X-Should-Retry"] == "false"
    assert answer.headers["X-Request-Id"]
    elsewhere = await service.raw(b"GET /v11/models HTTP/1.1\r\nHost : b\r\n\r\n")
    assert elsewhere.headers["Content-Type"] == "application/problem+json"


async def test_large_pictures_are_sent_whole(serve: Serve) -> None:
    service = await serve()
    body, key = json.dumps({"prompt": PROMPT, "n": 4, "size": "64x64"}), {"Idempotency-Key": "a"}
    await service.post_body(GENERATIONS, body, JSON, key)
    files = [Path(service.settings.storage_dir, "output", name) for name in service.area("output")]
    large = {os.urandom(2_000_000 + number) for number in range(4)}
    for file, data in zip(files, large, strict=True):
        file.write_bytes(data)
    answer = await service.post_body(GENERATIONS, body, JSON, key)
    assert {base64.b64decode(each["b64_json"], validate=True) for each in answer.json["data"]} == large
    files[0].unlink()
    assert_error(await service.post_body(GENERATIONS, body, JSON, key), 404, "invalid_request_error", "not_found")


async def test_a_file_that_became_shorter_ends_the_connection(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service = await serve()
    whole = StoredFile.piece
    monkeypatch.setattr(StoredFile, "piece", lambda file, start, size: whole(file, start, size)[:-1])
    asked = service.session.post(f"{service.url}{GENERATIONS}", json={"prompt": PROMPT, "size": "64x64"})
    with pytest.raises(aiohttp.ClientError):
        async with asyncio.timeout(10), asked as answer:
            await answer.read()
    assert "became shorter" in caplog.text
