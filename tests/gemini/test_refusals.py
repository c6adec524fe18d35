"""Error statuses of Gemini: their errors, retry delays, and what is known of billing."""

import email.utils
import math
import time
from collections.abc import Awaitable, Callable, Mapping

import pytest
from aiohttp import web

from service.emulator.app import Fault
from service.emulator.responders import PendingRequest, Responder, error, raw
from service.emulator.wire import Json, detail, dump
from service.emulator.wire import error as error_body
from service.errors import (
    GeminiAuth,
    GeminiError,
    GeminiFailed,
    GeminiRejected,
    GeminiTimeout,
    GeminiUnavailable,
    QuotaExhausted,
)
from service.gemini import transport
from service.gemini.refusals import LONGEST_DELAY_SECONDS, ErrorStatus, NotExecuted, refusal
from tests.gemini.conftest import CALL, Connect
from tests.helpers import QuickEmulator

PLAIN = "You exceeded your current quota, please check your plan and billing details."
TOKENS = {"usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 1120}}


def answered(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, whole: bool = True) -> Exception:
    return refusal(ErrorStatus(status, headers or {}, body, whole))


def quota(message: str, *details: Json) -> Exception:
    return answered(429, dump(error_body(429, message, details=details)))


async def cut(call: PendingRequest, status: int) -> web.StreamResponse:
    """An error whose body is truncated."""
    transport = call.request.transport
    assert transport
    head = f"HTTP/1.1 {status} Odd\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    transport.write(head.encode() + b'{"error": {"message')
    transport.close()
    return web.Response()


async def stalled(call: PendingRequest, status: int) -> web.StreamResponse:
    """An error whose body never arrives."""
    response = web.StreamResponse(status=status, headers={"Content-Length": "100"})
    await response.prepare(call.request)
    await call.closing.wait()
    return response


def broken(status: int) -> dict[str, Fault]:
    """Bodies that are not Google's error JSON, by name."""

    def with_status(play: Callable[[PendingRequest, int], Awaitable[web.StreamResponse]]) -> Responder:
        return lambda call: play(call, status)

    return {
        "not JSON": raw(status, b"upstream connect error"),
        "HTML": raw(status, b"<h1>busy</h1>", "text/html"),
        "HTML as JSON": raw(status, b"<h1>busy</h1>"),
        "empty": raw(status),
        "empty text": raw(status, b"", "text/plain"),
        "not UTF-8": raw(status, b'{"error": "\xff\xfe"}'),
        "array": raw(status, dump([error_body(503, "busy"), 7])),
        "null": raw(status, b"null"),
        "text": raw(status, b'{"error": "busy"}'),
        "odd error": raw(status, b'{"error": [7], "details": 7}'),
        "odd details": raw(status, b'{"error": {"message": [1], "details": [{"retryDelay": {}}, 7]}}'),
        "deep": raw(status, b"[" * 100_000),
        "endless digits": raw(status, b"9" * 100_000),
        "unknown charset": raw(status, b"busy", "text/plain; charset=none-such"),
        "large": raw(status, bytes(2_000_000)),
        "cut": with_status(cut),
        "stalled": with_status(stalled),
    }


BODIES = list(broken(500))


@pytest.fixture(autouse=True)
def patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The body that never comes is given up soon, and every other is waited for, however busy the machine is."""
    stalls = "stalled" in request.node.name
    monkeypatch.setattr(transport, "ERROR_BODY_SECONDS", 0.1 if stalls else 20)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("status", [429, 503])
async def test_429_and_503_are_retried_whatever_their_body_is(
    connect: Connect, quick_backoff: None, body: str, status: int
) -> None:
    emulator = QuickEmulator(faults=[broken(status)[body]])
    gemini = await connect(emulator, retry=20)
    assert (await gemini.generate_image(CALL)).picture
    assert emulator.requests == 2


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, GeminiRejected), (401, GeminiAuth), (403, GeminiAuth), (404, GeminiRejected), (500, GeminiFailed),
     (502, GeminiFailed), (504, GeminiTimeout)],
)  # fmt: skip
async def test_any_other_status_is_an_error_of_its_own_and_not_retried(
    connect: Connect, body: str, status: int, kind: type[GeminiError]
) -> None:
    emulator = QuickEmulator(then=broken(status)[body])
    with pytest.raises(kind, match=f"Gemini answered {status}") as caught:
        await (await connect(emulator, retry=20)).generate_image(CALL)
    unknown = status >= 500 and body in ("large", "cut", "stalled")
    assert caught.value.billed is (None if unknown else False)
    assert emulator.requests == 1


@pytest.mark.parametrize("status", [400, 429, 500, 503, 504])
@pytest.mark.parametrize(
    "body", [{**error_body(503, "busy"), **TOKENS}, {"usage_metadata": {"candidates_token_count": 5}}]
)
async def test_an_error_that_counts_tokens_is_billed_and_not_retried(
    connect: Connect, status: int, body: dict[str, object]
) -> None:
    emulator = QuickEmulator(then=raw(status, dump(body)))
    with pytest.raises(GeminiError) as caught:
        await (await connect(emulator, retry=20)).generate_image(CALL)
    assert (caught.value.billed, caught.value.worth_retrying) == (True, False)
    assert emulator.requests == 1


@pytest.mark.parametrize("status", [400, 429, 500, 503])
@pytest.mark.parametrize("name", ["inlineData", "inline_data"])
def test_an_error_with_a_picture_is_billed_and_not_retried(status: int, name: str) -> None:
    part = {name: {"mimeType": "image/png", "data": "iVBORw0KGgo"}}
    error = answered(status, dump({"candidates": [{"content": {"parts": [part]}}]}))
    assert isinstance(error, GeminiError)
    assert (error.billed, error.worth_retrying) == (True, False)


def test_a_reference_that_an_error_quotes_is_not_billed() -> None:
    part = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo"}}
    error = answered(500, dump({"contents": [{"parts": [part]}]}))
    assert isinstance(error, GeminiError)
    assert error.billed is False


def test_tokens_that_were_not_counted_are_not_billed() -> None:
    said = 'a text with "candidatesTokenCount": 7'
    for body in (dump({"usageMetadata": {"candidatesTokenCount": 0}}), dump(error_body(400, said))):
        error = answered(400, body)
        assert isinstance(error, GeminiRejected)
        assert error.billed is False


def test_googles_own_timeout_is_unbilled_and_does_not_mention_billing() -> None:
    error = answered(504, dump(error_body(504, "The request timed out.")))
    assert isinstance(error, GeminiTimeout)
    assert (error.billed, error.worth_retrying) == (False, False)
    assert "billed" not in error.title + error.detail


@pytest.mark.parametrize(
    "message",
    [
        "Your prepayment credits are depleted. Please go to AI Studio to manage your project and billing.",
        "Prepayment credits are depleted",
        "Your project has exceeded its monthly spending cap.",
        "The spend cap of your project was reached.",
        "Monthly SPENDING_LIMIT reached",
        "Billing is disabled for project 17.",
        "This API method requires billing to be enabled. Please enable billing on project #17.",
        "Your billing account is not active.",
        "You have run out of credits.",
        "Your credit balance is too low.",
        "Insufficient funds.",
    ],
)
def test_depleted_credits_are_lasting_and_not_retryable(message: str) -> None:
    refused = quota(message, detail("RetryInfo", retryDelay="2.4s"))
    assert isinstance(refused, NotExecuted)
    assert (refused.seconds, refused.error.worth_retrying, refused.error.billed) == (math.inf, False, False)
    assert (refused.error.code, refused.error.status) == ("quota_exhausted", 429)
    assert int(refused.error.headers["Retry-After"]) >= 3600


def test_the_reason_is_found_in_the_details_too() -> None:
    refused = quota("Permission denied.", detail("ErrorInfo", reason="BILLING_DISABLED"))
    assert isinstance(refused, NotExecuted)
    assert refused.error.worth_retrying is False


@pytest.mark.parametrize(
    ("message", "quota_id"),
    [
        ("Quota exceeded for quota metric 'Requests' and limit 'Requests per day'", "X"),
        (PLAIN, "GenerateRequestsPerDayPerProjectPerModel"),
        ("Daily limit reached", "X"),
        (f"{PLAIN}\n* Quota exceeded for metric: generate_requests, limit: 0, model: m", "X"),
    ],
)
def test_a_daily_or_zero_quota_is_lasting_and_retryable(message: str, quota_id: str) -> None:
    refused = quota(message, detail("QuotaFailure", violations=[{"quotaId": quota_id}]))
    assert isinstance(refused, NotExecuted)
    assert (refused.seconds, refused.error.worth_retrying) == (math.inf, True)
    assert int(refused.error.headers["Retry-After"]) >= 3600


@pytest.mark.parametrize(
    "message", [PLAIN, "Resource has been exhausted (e.g. check quota).", f"{PLAIN} limit: 10, limit: 0.5"]
)
def test_a_quota_per_minute_is_not_lasting(message: str) -> None:
    refused = quota(message, detail("QuotaFailure", violations=[{"quotaId": "GenerateRequestsPerMinutePerProject"}]))
    assert isinstance(refused, NotExecuted)
    assert (refused.seconds, refused.error.worth_retrying) == (None, True)


@pytest.mark.parametrize("words", ["prepay", "depleted", "prepaid credits ", "limit: "])
def test_a_long_error_is_searched_in_linear_time(words: str) -> None:
    assert isinstance(answered(429, words.encode() * 40_000), NotExecuted)


@pytest.mark.parametrize("fault", [error(429, "Prepayment credits are depleted"), "daily_quota", "zero_quota"])
async def test_a_lasting_quota_fails_at_once_whatever_the_budget(connect: Connect, fault: Fault) -> None:
    emulator = QuickEmulator(then=fault)
    with pytest.raises(QuotaExhausted) as caught:
        await (await connect(emulator, retry=3600)).generate_image(CALL)
    assert caught.value.headers["Retry-After"] == "3600"
    assert emulator.requests == 1


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    "form", ["{:%a, %d %b %Y %H:%M:%S} GMT", "{:%A, %d-%b-%y %H:%M:%S} GMT", "{:%a %b %d %H:%M:%S %Y}"]
)
@pytest.mark.parametrize("skew", [-86400, 0, 86400])
def test_a_date_in_retry_after_counts_from_the_senders_clock(status: int, form: str, skew: int) -> None:
    now = time.time() + skew
    moment = email.utils.parsedate_to_datetime(email.utils.formatdate(now + 90, usegmt=True))
    headers = {"Retry-After": form.format(moment), "Date": email.utils.formatdate(now, usegmt=True)}
    refused = answered(status, headers=headers)
    assert isinstance(refused, NotExecuted)
    assert refused.seconds == pytest.approx(90, abs=1)


def test_a_date_without_the_senders_clock_counts_from_ours() -> None:
    refused = answered(503, headers={"Retry-After": email.utils.formatdate(time.time() + 90, usegmt=True)})
    assert isinstance(refused, NotExecuted)
    assert refused.seconds == pytest.approx(90, abs=5)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("1.5", 1.5),
        ("٧", None),
        ("-7", None),
        ("soon", None),
        ("", None),
        ("9" * 400, LONGEST_DELAY_SECONDS),
        ("Wed, 21 Oct 1998 07:28:00 GMT", 0),
        ("Wed, 99 Oct 2037 07:28:00 GMT", None),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_parsed(value: str, seconds: float | None) -> None:
    refused = answered(503, headers={"Retry-After": value})
    assert isinstance(refused, NotExecuted)
    assert refused.seconds == seconds


async def test_an_overload_beyond_the_budget_fails_at_once(connect: Connect) -> None:
    later = email.utils.formatdate(time.time() + 600, usegmt=True)
    emulator = QuickEmulator(then=error(503, "busy", retry_after=later))
    with pytest.raises(GeminiUnavailable):
        await (await connect(emulator, retry=30)).generate_image(CALL)
    assert emulator.requests == 1


async def test_an_overload_has_a_retry_after(connect: Connect) -> None:
    gemini = await connect(QuickEmulator(then=error(503, "busy", detail("RetryInfo", retryDelay="90s"))), retry=30)
    with pytest.raises(GeminiUnavailable) as caught:
        await gemini.generate_image(CALL)
    assert caught.value.headers["Retry-After"] == "90"
