"""Replies that cannot be read, or that exceed the memory."""

import asyncio
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from service.emulator.responders import PendingRequest, Responder, json_response, raw
from service.emulator.wire import Json, dump, picture_part
from service.errors import StorageUnavailable
from service.server.keys import GEMINI
from service.settings import MIB
from service.store.scratch import Scratch
from tests.conftest import Serve
from tests.helpers import QuickEmulator, Running, assert_problem, decoded, fill_up, picture_bytes, small_disk, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

TINY = (("formats", "jpeg"), ("width", "16"))
HTML = b"<!doctype html>\xff\x00<h1>It worked, but you cannot see it.</h1>"


def large(size: int = 3 * MIB, edit: Callable[[Json], object] = lambda body: None) -> Responder:
    """A reply with a picture of `size` bytes, most of them padding."""

    def build(call: PendingRequest) -> bytes:
        body = call.reply(picture_part(picture_bytes((1376, 768)) + os.urandom(size)))
        edit(body)
        return dump(body)

    async def answer(call: PendingRequest) -> web.Response:
        return json_response(await asyncio.to_thread(build, call))

    return answer


def memory(service: Running) -> int:
    """How many bytes of GEMINI_REPLIES_MEMORY_MB are used."""
    return service.app[GEMINI]._memory.used


def kept(service: Running, error: dict[str, Any]) -> bytes:
    return Path(service.settings.storage_dir, error["storage_path"]).read_bytes()


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        (raw(200, HTML, "text/html"), HTML),
        (raw(203, HTML), HTML),
        (raw(200, b"{}"), b"{}"),
        (raw(200, b'{"candidates": [{"content":'), b'{"candidates": [{"content":'),
        (raw(200, dump({"candidates": [{"content": {"parts": [{"inlineData": {"data": "!"}}]}}]})), None),
        (raw(200, dump({"candidates": [{"content": {"parts": [{"fileData": {"fileUri": "gs://a/b"}}]}}]})), None),
    ],
)
async def test_an_unreadable_reply_is_kept_as_received(serve: Serve, answer: Responder, whole: bytes | None) -> None:
    service = await serve(QuickEmulator(then=answer))
    body = assert_problem(await service.thumbnails(*TINY), 502, "bad_reply")
    [error] = body["errors"]
    assert (error["billed"], error["retryable"]) == (None, False)
    assert error["storage_path"] == f"generated/{body['request_id']}_1.reply"
    assert whole is None or kept(service, error) == whole
    assert kept(service, error)
    assert (service.area("temp"), memory(service)) == ([], 0)


async def test_an_unreadable_reply_is_kept_without_its_content_encoding(serve: Serve) -> None:
    async def answer(call: PendingRequest) -> web.Response:
        return web.Response(body=gzip.compress(HTML), headers={"Content-Encoding": "gzip"})

    service = await serve(QuickEmulator(then=answer))
    [error] = assert_problem(await service.thumbnails(*TINY), 502, "bad_reply")["errors"]
    assert kept(service, error) == HTML


@pytest.mark.parametrize(
    "fault", ["blocked_safety", "finish_image_safety", "text_only", "error_in_200", "half_body", "empty_body"]
)
async def test_a_readable_or_truncated_reply_is_not_kept(serve: Serve, fault: str) -> None:
    service = await serve(QuickEmulator(then=fault))
    [error] = (await service.thumbnails(*TINY)).json["errors"]
    assert error["storage_path"] is None
    assert (service.area("generated"), service.area("temp"), memory(service)) == ([], [], 0)


@pytest.mark.parametrize("spilled", [False, True])
async def test_a_reply_above_the_limit_is_kept_up_to_there(serve: Serve, spilled: bool) -> None:
    limit = 2 * MIB if spilled else 500_000
    service = await serve(QuickEmulator(then=large()), gemini_max_reply_bytes=limit, gemini_replies_memory_mb=1)
    [error] = assert_problem(await service.thumbnails(*TINY), 502, "bad_reply", "cut", "GEMINI_MAX_REPLY_BYTES")[
        "errors"
    ]
    assert error["billed"] is None
    assert len(kept(service, error)) == limit
    assert kept(service, error).startswith(b'{"candidates"')
    assert (service.area("temp"), memory(service)) == ([], 0)


async def test_replies_share_a_bounded_memory_and_all_arrive(serve: Serve) -> None:
    """Eight replies of 4 MB with a limit of 6 MiB: the rest is written to the disk as it arrives."""
    service = await serve(QuickEmulator(then=large()), gemini_replies_memory_mb=6, max_variations=8)
    asked = asyncio.create_task(service.thumbnails(("count", "8"), *TINY))
    peak, spilled = 0, 0
    while not asked.done():
        peak = max(peak, memory(service))
        files = [Path(service.settings.storage_dir, "temp", name) for name in service.area("temp")]
        spilled = max(spilled, *(size_of(path) for path in files if path.suffix == ".body"), 0)
        await asyncio.sleep(0.002)
    answer = await asked
    assert answer.status == 200
    assert len(answer.json["variations"]) == 8, answer.json["errors"]
    assert peak <= 6 * MIB
    assert spilled > 0
    assert len(service.area("generated")) == 8
    assert (service.area("temp"), memory(service)) == ([], 0)


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


async def test_a_reply_larger_than_the_memory_is_read(serve: Serve) -> None:
    service = await serve(QuickEmulator(then=large(5 * MIB)), gemini_replies_memory_mb=1)
    answer = await service.thumbnails(("count", "3"), *TINY)
    assert len(answer.json["variations"]) == 3
    assert memory(service) == 0


async def test_a_spilled_reply_that_cannot_be_read_is_kept_whole(serve: Serve) -> None:
    service = await serve(QuickEmulator(then=raw(200, b"<" * (3 * MIB))), gemini_replies_memory_mb=1)
    body = assert_problem(await service.thumbnails(*TINY), 502, "bad_reply")
    assert service.area("generated") == [f"{body['request_id']}_1.reply"]
    assert kept(service, body["errors"][0]) == b"<" * (3 * MIB)
    assert (service.area("temp"), memory(service)) == ([], 0)


@pytest.mark.parametrize("memory_mb", [1, 256])
async def test_a_full_disk_keeps_as_much_of_an_unreadable_reply_as_was_preallocated(
    serve: Serve, tmp_path: Path, memory_mb: int
) -> None:
    def fill(body: Json) -> None:
        fill_up(tmp_path / "disk")
        body["candidates"][0]["content"]["parts"][0]["inlineData"]["data"] += "!"

    with small_disk(tmp_path / "disk", 80) as disk:
        emulator = QuickEmulator(then=large(8 * MIB, fill))
        service = await serve(emulator, storage_dir=disk / "storage", gemini_replies_memory_mb=memory_mb)
        [error] = assert_problem(await service.thumbnails(*TINY), 502, "bad_reply")["errors"]
        assert "the disk took only a part of it" in error["detail"]
        assert kept(service, error).startswith(b'{"candidates"')
        assert (service.area("temp"), memory(service)) == ([], 0)


@pytest.mark.parametrize("readable", [True, False])
async def test_a_disk_that_fills_up_while_a_reply_arrives_loses_no_picture(
    serve: Serve, tmp_path: Path, readable: bool
) -> None:
    def fill(body: Json) -> None:
        fill_up(tmp_path / "disk")
        if not readable:
            body["candidates"][0]["content"]["parts"][0]["inlineData"]["data"] += "!"

    with small_disk(tmp_path / "disk", 80) as disk:
        emulator = QuickEmulator(then=large(2 * MIB, fill))
        service = await serve(emulator, storage_dir=disk / "storage", gemini_replies_memory_mb=1)
        answer = (await service.thumbnails(*TINY)).json
        [outcome] = answer.get("variations") or answer["errors"]
        data = kept(service, outcome)
        if readable:
            assert decoded(data).size == (1376, 768)
        else:
            assert (outcome["code"], outcome["billed"]) == ("bad_reply", True)
            assert data.endswith(b"}")
        assert (service.area("temp"), memory(service)) == ([], 0)


async def test_a_file_that_cannot_be_opened_fails_before_the_call(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve()

    def refuse(_: Scratch, key: str) -> None:
        raise StorageUnavailable("temp/ cannot be used: Too many open files")

    monkeypatch.setattr(Scratch, "_make", refuse)
    body = assert_problem(await service.thumbnails(*TINY), 503, "storage_unavailable", "temp/")
    assert (body["billed"], service.emulator.requests) == (False, 0)
    assert service.area("temp") == []


async def test_the_memory_of_a_disconnected_client_is_released(serve: Serve) -> None:
    service = await serve(QuickEmulator(delay_seconds=0.2, then=large()), gemini_replies_memory_mb=1)
    asked = asyncio.create_task(service.thumbnails(("count", "2"), *TINY))
    await until(lambda: service.emulator.requests == 2)
    asked.cancel()
    await until(lambda: len(service.area("output")) == 2)
    await until(lambda: memory(service) == 0)
    assert len(service.area("generated")) == 2


async def test_a_usage_of_megabytes_is_dropped(serve: Serve) -> None:
    service = await serve(QuickEmulator(faults=["huge_usage", "hidden_characters"]))
    first = (await service.thumbnails(*TINY)).json["variations"][0]
    assert first["metadata"]["usage"] is None
    second = (await service.thumbnails(*TINY)).json["variations"][0]
    assert second["metadata"]["usage"]["note"] == "\\u001b[31m\\u202enot what it seems"
    assert second["metadata"]["usage"]["candidatesTokenCount"] == 1120


async def test_the_usage_is_in_camel_case(serve: Serve) -> None:
    service = await serve(QuickEmulator(then="snake_case"))
    [variation] = (await service.thumbnails(*TINY)).json["variations"]
    assert variation["metadata"]["usage"]["candidatesTokensDetails"] == [{"modality": "IMAGE", "tokenCount": 1120}]
