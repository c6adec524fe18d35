"""Pictures of the OpenAI images API as server-sent events, each as soon as it is ready."""

import asyncio
import base64
import json
from typing import Any

import openai
import pytest

from service.emulator.responders import PendingRequest, one_picture
from service.server.keys import JOBS
from tests.conftest import Serve
from tests.handlers.openai_clients import PROMPT, assert_error, client_of
from tests.handlers.test_idempotency import Gate
from tests.helpers import Answer, QuickEmulator, Running, decoded, picture_bytes, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

SMALL: Any = "64x64"
GENERATIONS = "/v1/images/generations"
BODY = json.dumps({"prompt": PROMPT, "size": SMALL, "n": 2, "stream": True})


def events(answer: Answer) -> list[tuple[str, Any]]:
    """The names and data of the events, without comments."""
    blocks = [block for block in answer.body.decode().split("\n\n") if block and not block.startswith(":")]
    lines = [block.split("\n") for block in blocks]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in lines]


async def post(service: Running, **headers: str) -> Answer:
    return await service.post_body(
        GENERATIONS, BODY, "application/json", {name.replace("_", "-"): value for name, value in headers.items()}
    )


async def test_each_picture_is_an_event(service: Running) -> None:
    async with client_of(service) as client:
        stream = await client.images.generate(prompt=PROMPT, size=SMALL, n=2, stream=True, partial_images=3)
        completed = [event async for event in stream]
    for event in completed:
        assert event.type == "image_generation.completed"
        assert decoded(base64.b64decode(event.b64_json)).size == (64, 64)
        assert (event.size, event.quality, event.background, event.output_format) == (SMALL, "medium", "opaque", "png")
        assert event.usage.output_tokens == 1120
    assert len({event.created_at for event in completed}) == 1
    assert len({event.b64_json for event in completed}) == 2


async def test_an_edit_is_streamed_under_its_own_name(service: Running) -> None:
    async with client_of(service) as client:
        stream = await client.images.edit(image=picture_bytes(), prompt=PROMPT, size=SMALL, stream=True)
        assert [event.type async for event in stream] == ["image_edit.completed"]


async def test_a_picture_is_sent_before_the_next_one_is_ready(serve: Serve) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(faults=[one_picture], then=gate))
    async with client_of(service) as client:
        stream = await client.images.generate(prompt=PROMPT, size=SMALL, n=2, stream=True)
        assert (await anext(aiter(stream))).type == "image_generation.completed"
        gate.open.set()
        assert [event.type async for event in stream] == ["image_generation.completed"]


async def test_failed_pictures_are_errors_after_all_others(serve: Serve) -> None:
    gate = Gate()

    async def late(pending: PendingRequest) -> Any:
        await gate.open.wait()
        return await one_picture(pending)

    service = await serve(QuickEmulator(faults=["blocked_safety"], then=late))
    asking = asyncio.create_task(post(service))
    await until(lambda: service.emulator.requests == 2)
    gate.open.set()
    answer = await asking
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    [(first, picture), (second, error)] = events(answer)
    assert (first, picture["type"]) == ("image_generation.completed", "image_generation.completed")
    assert (second, set(error), set(error["error"])) == (
        "error",
        {"type", "error"},
        {"message", "type", "param", "code"},
    )
    assert (error["type"], error["error"]["code"]) == ("error", "moderation_blocked")


async def test_a_client_meets_the_failure_after_the_pictures(serve: Serve) -> None:
    service = await serve(QuickEmulator(faults=["text_only"]))
    async with client_of(service) as client:
        stream = await client.images.generate(prompt=PROMPT, size=SMALL, n=2, stream=True)
        assert (await anext(aiter(stream))).type == "image_generation.completed"
        with pytest.raises(openai.APIError, match="describe"):
            await anext(aiter(stream))


async def test_a_failure_of_all_is_the_plain_error(serve: Serve) -> None:
    service = await serve(QuickEmulator(then="blocked_safety"))
    assert_error(await post(service), 400, "image_generation_user_error", "moderation_blocked")


async def test_comments_keep_the_stream_alive_and_then_a_failure_is_an_event(serve: Serve) -> None:
    gate = Gate()

    async def refused(pending: PendingRequest) -> Any:
        await gate.open.wait()
        return await blocked(pending)

    blocked: Any = QuickEmulator(faults=["blocked_safety"])._faults[0]
    service = await serve(QuickEmulator(then=refused), sse_heartbeat_seconds=0.1)
    async with service.session.post(f"{service.url}{GENERATIONS}", json=json.loads(BODY)) as answer:
        assert await answer.content.readuntil(b"\n\n") == b":\n\n"
        gate.open.set()
        rest = await answer.content.read()
    found = events(Answer(answer.status, answer.headers, rest))
    assert [(name, data["error"]["code"]) for name, data in found] == [("error", "moderation_blocked")] * 2


async def test_a_stream_that_is_cut_goes_on_in_its_retry(serve: Serve) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(faults=[one_picture], then=gate))
    async with service.session.post(f"{service.url}{GENERATIONS}", json=json.loads(BODY)) as first:
        await first.content.readuntil(b"\n\n")
        first.close()
    retry = asyncio.create_task(post(service, x_stainless_retry_count="1"))
    gate.open.set()
    answer = await retry
    assert [name for name, _ in events(answer)] == ["image_generation.completed"] * 2
    assert answer.headers["Idempotency-Replayed"] == "true"
    assert service.emulator.requests == 2
    await until(lambda: not service.app[JOBS].running)
