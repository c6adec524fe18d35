import json
from collections.abc import Iterable
from contextlib import suppress

import aiohttp
import pytest
from google.genai import errors, types
from pydantic import ValidationError

from service.emulator.app import Emulator
from service.emulator.faults import BLOCK_REASONS, FAULTS, FINISH_REASONS
from service.emulator.responders import error, repainted
from service.emulator.wrappings import WRAPPINGS
from tests.emulator.helpers import Connect, ask, drawn, pictures
from tests.helpers import QuickEmulator

ERRORS = {
    "bad_request": 400,
    "bad_key": 400,
    "bad_location": 400,
    "unauthenticated": 401,
    "permission_denied": 403,
    "not_found": 404,
    "rate_limited": 429,
    "rate_limited_long": 429,
    "rate_limited_header": 429,
    "rate_limited_bare": 429,
    "daily_quota": 429,
    "zero_quota": 429,
    "internal": 500,
    "server_error_html": 502,
    "unavailable": 503,
    "deadline_exceeded": 504,
}
RAISED: dict[str, type[Exception]] = {
    "no_content": errors.APIError,
    "server_error_not_json": json.JSONDecodeError,
    "malformed": json.JSONDecodeError,
    "html": json.JSONDecodeError,
    "cut_at_eof": json.JSONDecodeError,
    "bad_base64": ValidationError,
    "wrong_content": ValidationError,
    "wrong_candidate": TypeError,
    "number": TypeError,
    "drop": aiohttp.ServerDisconnectedError,
    "half_body": aiohttp.ClientPayloadError,
}
EMPTY = (
    "empty_body", "empty_object", "list", "null", "error_in_200", "error_in_200_billed", "blocked_billed",
    "wrong_candidates", "no_candidates", "text_only", "file_uri",
)  # fmt: skip
NOT_FOLLOWED = ("redirect_nowhere", "not_modified", *(name for name in FAULTS if name.startswith("redirect_3")))
# The wrappings that the SDK can read; with the others it finds no picture.
READ_BY_THE_SDK = {
    "unpadded", "url_safe", "url_safe_unpadded", "snake_case", "html_safe", "error_null", "gzip", "deflate",
    "deflate_bare", "unknown_encoding",
}  # fmt: skip
BLOCKED = {f"blocked_{reason.lower()}": reason for reason in BLOCK_REASONS}
FINISHED = {f"finish_{reason.lower()}": reason for reason in FINISH_REASONS}
UNKNOWN = ("blocked_unknown", "finish_unknown")
# name -> declared MIME type, first bytes, Pillow's mode (None if the bytes are no complete picture)
PICTURES: dict[str, tuple[str, bytes, str | None]] = {
    "no_usage": ("image/png", b"\x89PNG", "RGB"),
    "huge_usage": ("image/png", b"\x89PNG", "RGB"),
    "hidden_characters": ("image/png", b"\x89PNG", "RGB"),
    "text_beside": ("image/png", b"\x89PNG", "RGB"),
    "jpeg": ("image/jpeg", b"\xff\xd8\xff", "RGB"),
    "webp": ("image/webp", b"RIFF", "RGB"),
    "jpeg_as_png": ("image/png", b"\xff\xd8\xff", "RGB"),
    "webp_as_png": ("image/png", b"RIFF", "RGB"),
    "gif": ("image/gif", b"GIF8", "P"),
    "rgba": ("image/png", b"\x89PNG", "RGBA"),
    "grey": ("image/png", b"\x89PNG", "L"),
    "palette": ("image/png", b"\x89PNG", "P"),
    "cmyk": ("image/jpeg", b"\xff\xd8\xff", "CMYK"),
    "grey16": ("image/png", b"\x89PNG", "I;16"),
    "not_a_picture": ("image/png", b"these bytes", None),
    "truncated_picture": ("image/png", b"\x89PNG", None),
}
SEVERAL = {"draft_first": [True, None], "drafts_only": [True, True], "several": [None, None]}


def test_every_fault_is_tried_here() -> None:
    tables: tuple[Iterable[str], ...] = (
        ERRORS, RAISED, EMPTY, BLOCKED, FINISHED, UNKNOWN, PICTURES, SEVERAL, NOT_FOLLOWED, WRAPPINGS, ["hang"],
    )  # fmt: skip
    assert sorted(name for table in tables for name in table) == sorted(FAULTS)


@pytest.mark.parametrize(("name", "code"), ERRORS.items())
async def test_an_error_status_is_raised(connect: Connect, name: str, code: int) -> None:
    kind = errors.ClientError if code < 500 else errors.ServerError
    with pytest.raises(kind) as caught:
        await ask(await connect(QuickEmulator(then=name)))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("name", "delay", "header"),
    [
        ("rate_limited", "0.3s", None),
        ("rate_limited_long", "3600s", None),
        ("rate_limited_header", None, "1"),
        ("rate_limited_bare", None, None),
    ],
)
async def test_a_rate_limit_has_a_retry_delay(
    connect: Connect, name: str, delay: str | None, header: str | None
) -> None:
    with pytest.raises(errors.ClientError) as caught:
        await ask(await connect(QuickEmulator(then=name)))
    details = caught.value.details["error"].get("details", [])
    assert next((one["retryDelay"] for one in details if one["@type"].endswith("RetryInfo")), None) == delay
    assert isinstance(caught.value.response, aiohttp.ClientResponse)
    assert caught.value.response.headers.get("Retry-After") == header


@pytest.mark.parametrize(("name", "mark"), [("daily_quota", "PerDay"), ("zero_quota", "limit: 0")])
async def test_a_lasting_quota_names_its_limit(connect: Connect, name: str, mark: str) -> None:
    with pytest.raises(errors.ClientError) as caught:
        await ask(await connect(QuickEmulator(then=name)))
    assert mark in json.dumps(caught.value.details)


@pytest.mark.parametrize(("name", "kind"), RAISED.items())
async def test_a_broken_answer_is_raised(connect: Connect, name: str, kind: type[Exception]) -> None:
    emulator = QuickEmulator(then=name)
    with pytest.raises(kind):
        await ask(await connect(emulator))
    assert emulator.requests == 1


@pytest.mark.parametrize("name", EMPTY)
async def test_an_answer_without_pictures_raises_nothing(connect: Connect, name: str) -> None:
    assert pictures(await ask(await connect(QuickEmulator(then=name)))) == []


@pytest.mark.parametrize(("name", "reason"), BLOCKED.items())
async def test_a_blocked_prompt_raises_nothing_and_costs_nothing(connect: Connect, name: str, reason: str) -> None:
    reply = await ask(await connect(QuickEmulator(then=name)))
    assert reply.candidates is None
    assert reply.prompt_feedback
    assert reply.prompt_feedback.block_reason == reason
    assert reply.usage_metadata
    assert reply.usage_metadata.candidates_token_count is None


@pytest.mark.parametrize(("name", "reason"), FINISHED.items())
async def test_a_candidate_may_end_without_a_picture(connect: Connect, name: str, reason: str) -> None:
    reply = await ask(await connect(QuickEmulator(then=name)))
    assert reply.candidates
    assert reply.candidates[0].finish_reason == reason
    assert reply.candidates[0].content is None


async def test_the_finish_message_is_on_the_wire(connect: Connect) -> None:
    client = await connect(QuickEmulator(then="finish_image_safety"))
    raw = types.GenerateContentConfig(should_return_http_response=True)
    reply = await ask(client, config=raw)
    assert reply.sdk_http_response
    assert "Stopped: IMAGE_SAFETY." in (reply.sdk_http_response.body or "")


@pytest.mark.parametrize("name", WRAPPINGS)
async def test_the_sdk_reads_only_some_wrappings(connect: Connect, name: str) -> None:
    client, found = await connect(QuickEmulator(then=name)), []
    with suppress(errors.APIError, ValueError, TypeError, AttributeError, aiohttp.ClientPayloadError):
        found = pictures(await ask(client))
    assert [data[:4] for data in found] == [b"\x89PNG"] * (name in READ_BY_THE_SDK)


@pytest.mark.parametrize(
    "name", [name for name in NOT_FOLLOWED if not name.startswith("redirect_30") or name == "redirect_300"]
)
async def test_redirects_are_sent(connect: Connect, name: str) -> None:
    with pytest.raises(errors.APIError) as caught:
        await ask(await connect(QuickEmulator(then=name)))
    assert 300 <= caught.value.code < 400


@pytest.mark.parametrize("name", UNKNOWN)
async def test_an_unknown_reason_only_warns(connect: Connect, name: str) -> None:
    client = await connect(QuickEmulator(then=name))
    with pytest.warns(UserWarning, match="IN_A_NEW_WAY"):
        reply = await ask(client)
    assert len(pictures(reply)) == (name == "finish_unknown")


@pytest.mark.parametrize(("name", "kind"), PICTURES.items())
async def test_a_picture_is_what_the_fault_says(
    connect: Connect, name: str, kind: tuple[str, bytes, str | None]
) -> None:
    declared, first, mode = kind
    reply = await ask(await connect(QuickEmulator(then=name)))
    [data] = pictures(reply)
    [blob] = [part.inline_data for part in reply.parts or [] if part.inline_data]
    assert blob.mime_type == declared
    assert data.startswith(first)
    if mode is None:
        with pytest.raises(OSError):  # noqa: PT011 - Pillow's own words
            drawn(reply).load()
    else:
        assert (drawn(reply).mode, drawn(reply).size) == (mode, (384, 3072))
        drawn(reply).load()


@pytest.mark.parametrize(("name", "thoughts"), SEVERAL.items())
async def test_several_pictures_in_one_answer(connect: Connect, name: str, thoughts: list[bool | None]) -> None:
    reply = await ask(await connect(QuickEmulator(then=name)))
    assert [part.thought for part in reply.parts or []] == thoughts
    assert len(set(pictures(reply))) == 2


async def test_a_hanging_reply_ends_with_the_clients_timeout(connect: Connect) -> None:
    emulator = QuickEmulator(then="hang")
    with pytest.raises(TimeoutError):
        await ask(await connect(emulator, timeout=100, headers={"X-Server-Timeout": "10"}))
    assert emulator.requests == 1


async def test_faults_apply_to_the_requests_in_order(connect: Connect) -> None:
    emulator = QuickEmulator(
        faults=["text_only", None, error(429, "slow down")], then=repainted(lambda _: b"all the rest")
    )
    client = await connect(emulator)
    assert pictures(await ask(client)) == []
    assert drawn(await ask(client)).format == "PNG"
    with pytest.raises(errors.ClientError, match="slow down"):
        await ask(client)
    assert [pictures(await ask(client)) for _ in range(2)] == [[b"all the rest"]] * 2


async def test_the_environment_schedules_faults_too(connect: Connect) -> None:
    client = await connect(
        Emulator.from_environment({"EMULATOR_DELAY_SECONDS": "0", "EMULATOR_FAULTS": "ok, list,*gif"})
    )
    assert [len(pictures(await ask(client))) for _ in range(4)] == [1, 0, 1, 1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EMULATOR_FAULTS", "no_such_fault"),
        ("EMULATOR_FAULTS", "*"),
        ("EMULATOR_DELAY_SECONDS", "soon"),
        ("EMULATOR_DELAY_SECONDS", "-1"),
        ("EMULATOR_DELAY_SECONDS", "nan"),
    ],
)
def test_a_bad_environment_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        Emulator.from_environment({name: value})


def test_without_faults_the_environment_gives_a_second_of_delay() -> None:
    assert Emulator.from_environment({}).delay_seconds == 1
