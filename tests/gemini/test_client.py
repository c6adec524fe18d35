"""Calls with the real SDK: requests, retries, timeouts."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web

from service.emulator.responders import PendingRequest, error, raw
from service.emulator.wire import detail
from service.errors import (
    BadReply,
    GeminiAuth,
    GeminiError,
    GeminiFailed,
    GeminiTimeout,
    GeminiUnavailable,
    OutcomeUnknown,
    QuotaExhausted,
    StorageFull,
)
from service.gemini.backoff import FIRST_PAUSE_SECONDS
from service.gemini.call import Call, CallHooks, Reference
from service.gemini.client import GeminiAccess, GeminiService, open_gemini
from service.gemini.refusals import LONGEST_DELAY_SECONDS
from service.imaging.formats import sniff
from service.server.connections import listening
from tests.gemini.conftest import CALL, Connect
from tests.helpers import KEY, QuickEmulator, picture_bytes, until


async def test_the_request_has_the_prompt_the_options_and_the_reference(connect: Connect, tmp_path: Path) -> None:
    emulator = QuickEmulator(api_key=KEY)
    gemini = await connect(emulator, api_version="v1beta", timeout=180)
    base = tmp_path / "base.webp"
    base.write_bytes(picture_bytes(kind="WEBP"))
    call = Call("gemini-3-pro-image", "a prompt", "16:9", "2K", Reference(str(base), "image/webp"))
    reply = await gemini.generate_image(call)
    assert sniff(reply.picture[:64]) == "png"
    assert reply.usage
    assert reply.usage["candidatesTokenCount"] == 1120
    [sent] = emulator.received
    assert (sent.version, sent.model, sent.prompt) == ("v1beta", "gemini-3-pro-image", "a prompt")
    assert (sent.aspect_ratio, sent.image_size, sent.modalities) == ("16:9", "2K", ("IMAGE",))
    assert [(one.mime_type, one.size) for one in sent.references] == [("image/webp", (64, 48))]
    assert sent.headers["x-server-timeout"] == "180"


async def test_a_timeout_below_googles_minimum_is_enforced_by_the_client(connect: Connect) -> None:
    emulator = QuickEmulator(delay_seconds=60)
    gemini = await connect(emulator, timeout=0.3)
    with pytest.raises(GeminiTimeout) as caught:
        await gemini.generate_image(CALL)
    assert caught.value.billed is None
    assert emulator.requests == 1


async def test_the_deadline_that_is_sent_is_at_least_googles_minimum(connect: Connect) -> None:
    emulator = QuickEmulator()
    await (await connect(emulator, timeout=2)).generate_image(CALL)
    assert emulator.received[0].headers["x-server-timeout"] == "10"


async def test_variables_of_the_sdk_do_not_change_the_backend(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_API_KEY", "another key")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:9")
    emulator = QuickEmulator(api_key=KEY)
    await (await connect(emulator)).generate_image(CALL)
    assert emulator.requests == 1


async def test_a_wrong_key_is_an_auth_error_without_the_key(connect: Connect) -> None:
    gemini = await connect(QuickEmulator(api_key="the right key"))
    with pytest.raises(GeminiAuth) as caught:
        await gemini.generate_image(CALL)
    assert KEY not in caught.value.detail


@pytest.mark.parametrize("fault", ["drop", "half_body"])
async def test_a_call_whose_connection_broke_is_not_retried(connect: Connect, fault: str) -> None:
    emulator = QuickEmulator(then=fault)
    gemini = await connect(emulator, retry=30)
    for number in (1, 2, 3):
        with pytest.raises(OutcomeUnknown) as caught:
            await gemini.generate_image(CALL)
        assert caught.value.billed is None
        assert emulator.requests == number


async def test_a_call_whose_reused_connection_was_dropped_is_not_retried(connect: Connect) -> None:
    emulator = QuickEmulator(faults=[None, "drop"])
    gemini = await connect(emulator, retry=30)
    await gemini.generate_image(CALL)
    with pytest.raises(OutcomeUnknown):
        await gemini.generate_image(CALL)
    assert emulator.requests == 2


def pausing(gemini: GeminiService) -> bool:
    """Whether the breaker of CALL's model is open or half-open."""
    breaker = gemini._queue._breakers.get(CALL.model)
    return breaker is not None and breaker.refusal is not None


class RecordingHooks(CallHooks):
    """Records its calls; `prepare` raises `fault`."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.calls: list[str] = []
        self.fault = fault

    async def prepare(self) -> None:
        self.calls.append("prepare")
        if self.fault:
            raise self.fault

    def sent(self) -> None:
        self.calls.append("sent")

    async def refused(self) -> None:
        self.calls.append("refused")


async def test_the_hooks_are_called_for_each_attempt(connect: Connect) -> None:
    gemini, hooks = await connect(QuickEmulator(faults=["rate_limited"]), retry=10), RecordingHooks()
    await gemini.generate_image(CALL, hooks)
    assert hooks.calls == ["prepare", "sent", "refused", "prepare", "sent"]


async def test_sent_is_not_called_without_a_connection() -> None:
    hooks = RecordingHooks()
    async with open_gemini(GeminiAccess(KEY, "http://127.0.0.1:9", retry=0)) as gemini:
        with pytest.raises(GeminiUnavailable):
            await gemini.generate_image(CALL, hooks)
    assert hooks.calls == ["prepare", "refused"]


async def test_an_exception_of_prepare_prevents_the_call(connect: Connect) -> None:
    emulator = QuickEmulator()
    gemini = await connect(emulator, concurrency=1)
    for _ in range(2):
        with pytest.raises(StorageFull):
            await gemini.generate_image(CALL, RecordingHooks(StorageFull("no space is left")))
    assert emulator.requests == 0


async def test_all_calls_of_a_model_share_one_pause(connect: Connect) -> None:
    emulator = QuickEmulator(faults=["rate_limited"])
    gemini = await connect(emulator, retry=10)
    first = asyncio.create_task(gemini.generate_image(CALL))
    await until(lambda: pausing(gemini))
    second = asyncio.create_task(gemini.generate_image(CALL))
    other = Call("gemini-3-pro-image", "another model", "16:9", "1K")
    await gemini.generate_image(other)
    assert [each.model for each in emulator.received] == [CALL.model, other.model]
    await asyncio.gather(first, second)
    assert emulator.requests == 4


async def test_queued_calls_wait_for_the_pause_too(connect: Connect) -> None:
    emulator = QuickEmulator(faults=["rate_limited"], delay_seconds=0.05)
    gemini = await connect(emulator, retry=10, concurrency=1)
    await asyncio.gather(*(gemini.generate_image(CALL) for _ in range(3)))
    assert (emulator.requests, emulator.peak) == (4, 1)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("delay", "header"), [("0s", None), ("0.001s", None), (None, "0")])
async def test_a_retry_delay_shorter_than_the_backoff_is_ignored(
    connect: Connect, status: int, delay: str | None, header: str | None
) -> None:
    details = [detail("RetryInfo", retryDelay=delay)] if delay else []
    emulator = QuickEmulator(then=error(status, "slow down", *details, retry_after=header))
    gemini = await connect(emulator, retry=FIRST_PAUSE_SECONDS / 3)
    with pytest.raises(GeminiError):
        await gemini.generate_image(CALL)
    assert emulator.requests == 1


@pytest.mark.parametrize("delay", ["9999999999s", "9999999999.5s", "31536000000s", "9" * 400 + "s"])
async def test_a_delay_of_any_length_is_beyond_the_budget(connect: Connect, delay: str) -> None:
    emulator = QuickEmulator(then=error(429, "slow down", detail("RetryInfo", retryDelay=delay)))
    with pytest.raises(QuotaExhausted) as caught:
        await (await connect(emulator, retry=30)).generate_image(CALL)
    assert emulator.requests == 1
    assert 9_999_999_999 <= int(caught.value.headers["Retry-After"]) <= LONGEST_DELAY_SECONDS


@pytest.mark.parametrize(
    ("delay", "header", "seconds"),
    [
        ("2.4s", None, 3),
        ("7s", "1", 8),
        (None, "9", 10),
        ("soon", "9", 10),
        (None, "Wed, 21 Oct 1998 07:28:00 GMT", 1),
        (None, "Wed, 21 Oct", 2),
        ("-5s", None, 2),
        (None, None, 2),
        ("1e9s", None, 2),
    ],
)
async def test_an_exhausted_quota_has_a_retry_after(
    connect: Connect, delay: str | None, header: str | None, seconds: int
) -> None:
    details = [detail("RetryInfo", retryDelay=delay)] if delay else []
    gemini = await connect(QuickEmulator(then=error(429, "slow down", *details, retry_after=header)), retry=0)
    with pytest.raises(QuotaExhausted) as caught:
        await gemini.generate_image(CALL)
    assert abs(int(caught.value.headers["Retry-After"]) - seconds) <= 1
    assert "slow down" in caught.value.detail


async def test_a_long_message_is_cut_and_put_on_one_line(connect: Connect) -> None:
    gemini = await connect(QuickEmulator(then=error(400, "no\n" * 5000)))
    with pytest.raises(GeminiError) as caught:
        await gemini.generate_image(CALL)
    assert len(caught.value.detail) < 300
    assert caught.value.detail.isprintable()


@pytest.mark.parametrize("status", [407, 418, 451, 501, 502, 520])
async def test_any_other_status_is_a_502(connect: Connect, status: int) -> None:
    emulator = QuickEmulator(then=raw(status, b"odd", "text/plain"))
    with pytest.raises(GeminiError) as caught:
        await (await connect(emulator, retry=30)).generate_image(CALL)
    assert caught.value.status == 502
    assert emulator.requests == 1


async def test_a_refused_connection_is_unavailable_and_unbilled() -> None:
    async with open_gemini(GeminiAccess(KEY, "http://127.0.0.1:9", retry=0)) as gemini:
        with pytest.raises(GeminiUnavailable) as caught:
            await gemini.generate_image(CALL)
    assert caught.value.billed is False


async def test_a_refused_connection_is_retried_until_gemini_is_up() -> None:
    async with listening(QuickEmulator().create_app(), "127.0.0.1", 0) as [(host, port)]:
        pass
    async with open_gemini(GeminiAccess(KEY, f"http://{host}:{port}", retry=30)) as gemini:
        drawing = asyncio.create_task(gemini.generate_image(CALL))
        await until(lambda: pausing(gemini))
        emulator = QuickEmulator()
        async with listening(emulator.create_app(), host, port):
            assert (await drawing).picture
    assert emulator.requests == 1


async def test_a_cancelled_call_returns_its_slot(connect: Connect) -> None:
    emulator = QuickEmulator(delay_seconds=60)
    gemini = await connect(emulator, concurrency=1)
    drawing = asyncio.create_task(gemini.generate_image(CALL))
    await until(lambda: emulator.in_flight == 1)
    drawing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await drawing
    emulator.delay_seconds = 0
    assert (await gemini.generate_image(CALL)).picture


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [(200, BadReply, r"100000 bytes.*GEMINI_MAX_REPLY_BYTES"), (500, GeminiFailed, "Gemini answered 500")],
)
async def test_a_reply_without_end_is_aborted(
    connect: Connect, status: int, kind: type[GeminiError], words: str
) -> None:
    async def endless(asked: PendingRequest) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"Content-Type": "application/json"})
        await response.prepare(asked.request)
        with suppress(ConnectionError):
            while True:
                await response.write(bytes(10_000))
        return response

    gemini = await connect(QuickEmulator(then=endless), max_reply_bytes=100_000)
    with pytest.raises(kind, match=words) as caught:
        await gemini.generate_image(CALL)
    assert caught.value.billed is None


def test_the_repr_of_an_access_does_not_show_the_key() -> None:
    assert KEY not in repr(GeminiAccess(KEY))
