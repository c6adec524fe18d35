"""Reading a 200 of Gemini."""

import base64
import json
import re
from typing import Any

import pytest
from pydantic import TypeAdapter

from service.errors import BadReply, Blocked, GeminiError, GeminiFailed, NoImage
from service.gemini import wire
from service.gemini.reply import REFUSALS, billed, read_reply, try_reply
from service.gemini.wire import LONG
from service.quoting import EXCERPT
from tests.helpers import KEY

PNG = b"\x89PNG\r\n\x1a\n a picture of some kind"
DATA = base64.b64encode(PNG).decode()
URI = f"data:image/png;base64,{DATA}"
USAGE = {"promptTokenCount": 9, "candidatesTokenCount": 1120, "totalTokenCount": 1129}


def picture(data: bytes, **more: Any) -> dict[str, Any]:
    return {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(data).decode()}, **more}


def answer(*parts: Any, usage: Any = USAGE, **candidate: Any) -> bytes:
    content = {"content": {"parts": list(parts), "role": "model"}} if parts else {}
    body = {"candidates": [{"finishReason": "STOP", **content, **candidate}], "usageMetadata": usage}
    return json.dumps(body).encode()


def refused(body: bytes) -> GeminiError:
    with pytest.raises(GeminiError) as caught:
        read_reply(body)
    return caught.value


def test_a_picture_and_its_usage() -> None:
    reply = read_reply(answer(picture(b"picture")))
    assert (reply.picture, reply.usage) == (b"picture", USAGE)


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        ([picture(b"1"), picture(b"2")], b"2"),
        ([picture(b"1", thought=True), picture(b"2")], b"2"),
        ([picture(b"1"), picture(b"2", thought=True)], b"1"),
        ([picture(b"1", thought=True), picture(b"2", thought=True)], b"2"),
        ([picture(b"1"), {"text": "enjoy"}], b"1"),
        ([{"text": "thinking", "thought": True}, picture(b"1", thought=False)], b"1"),
        ([picture(b"1"), {"inlineData": {"mimeType": "image/png"}}, {"inlineData": None}, 7, None], b"1"),
    ],
)
def test_the_last_picture_that_is_no_draft_is_read(parts: list[Any], wanted: bytes) -> None:
    assert read_reply(answer(*parts)).picture == wanted


@pytest.mark.parametrize(
    ("candidates", "wanted"),
    [
        ([{"finishReason": "IMAGE_SAFETY"}, {"content": {"parts": [picture(b"1")]}}], b"1"),
        ([{"content": {"parts": [{"text": "no"}]}}, {}, None, {"content": {"parts": [picture(b"1")]}}], b"1"),
        ([{"content": {"parts": [picture(b"1"), picture(b"2")]}}, {"content": {"parts": [picture(b"3")]}}], b"2"),
    ],
)
def test_the_first_candidate_with_a_picture_is_read(candidates: list[Any], wanted: bytes) -> None:
    assert read_reply(json.dumps({"candidates": candidates}).encode()).picture == wanted


def test_without_any_picture_the_first_candidate_gives_the_reason() -> None:
    candidates = [{"finishReason": "IMAGE_SAFETY"}, {"finishReason": "NO_IMAGE"}]
    assert "IMAGE_SAFETY" in refused(json.dumps({"candidates": candidates}).encode()).detail


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_standard_and_url_safe_base64_are_read(encode: Any) -> None:
    data = bytes(range(256))
    assert read_reply(answer({"inlineData": {"data": encode(data).decode()}})).picture == data


@pytest.mark.parametrize("data", ["!not base64!", "abcde", 7, ["a"], {"a": 1}, "é"])
def test_invalid_base64_is_a_bad_reply_that_was_billed(data: object) -> None:
    error = refused(answer({"inlineData": {"data": data}}))
    assert isinstance(error, BadReply)
    assert error.billed is True


@pytest.mark.parametrize("reason", ["STOP", "MAX_TOKENS", "FINISHED_IN_A_NEW_WAY", None, 7, *sorted(REFUSALS)])
def test_a_picture_is_read_whatever_the_finish_reason(reason: object) -> None:
    assert read_reply(answer(picture(b"1"), finishReason=reason)).picture == b"1"


@pytest.mark.parametrize("reason", sorted(REFUSALS))
def test_a_refusal_names_its_reason_and_message(reason: str) -> None:
    error = refused(answer(finishReason=reason, finishMessage="It shows\n a  brand.", usage={"promptTokenCount": 9}))
    assert isinstance(error, Blocked)
    assert error.detail == f"Gemini refused to draw ({reason}): It shows a brand."
    assert error.billed is None


@pytest.mark.parametrize("reason", ["NO_IMAGE", "STOP", "OTHER", "IMAGE_OTHER", "MALFORMED_RESPONSE", "A_NEW_ONE"])
def test_a_reply_without_a_picture_names_the_reason(reason: str) -> None:
    error = refused(answer(finishReason=reason))
    assert isinstance(error, NoImage)
    assert reason in error.detail
    assert error.billed is True


def test_text_alone_is_quoted_and_cut() -> None:
    error = refused(answer({"text": "I would rather"}, {"text": "not. " * 100}))
    assert isinstance(error, NoImage)
    assert "I would rather not." in error.detail
    assert len(error.detail) < EXCERPT + 80


@pytest.mark.parametrize("reason", ["SAFETY", "OTHER", "A_NEW_ONE"])
def test_a_blocked_prompt_costs_nothing(reason: str) -> None:
    body = {"promptFeedback": {"blockReason": reason, "blockReasonMessage": "no"}, "usageMetadata": {}}
    error = refused(json.dumps(body).encode())
    assert isinstance(error, Blocked)
    assert error.billed is False
    assert error.detail == f"Gemini refused the prompt ({reason}): no"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"null", b"7", b'"text"', b"{", b"<html>", b"\xff\xfe", b"[" * 100_000, b"NaN",
        b'{"candidates": []}', b'{"candidates": null}', b'{"candidates": "none"}', b'{"candidates": [7]}',
        b'{"candidates": {"content": 1}}', b'{"candidates": [{}]}', b'{"candidates": [{"content": "none"}]}',
        b'{"candidates": [{"content": {"parts": "none"}}]}', b'{"candidates": [{"content": {"parts": [{}]}}]}',
        b'{"usageMetadata": 7, "candidates": []}', b'{"promptFeedback": 7}', b'{"promptFeedback": {}}',
    ],
)  # fmt: skip
def test_a_200_without_content_is_a_bad_reply(body: bytes) -> None:
    error = refused(body)
    assert isinstance(error, BadReply)
    assert error.billed is None
    assert error.status == 502


@pytest.mark.parametrize("error", [{"code": 429, "message": "later"}, {"message": "later"}])
def test_an_error_inside_a_200_is_a_failure_of_geminis(error: object) -> None:
    got = refused(json.dumps({"error": error}).encode())
    assert isinstance(got, GeminiFailed)
    assert (got.status, got.billed, got.worth_retrying) == (502, None, False)
    assert "later" in got.detail


@pytest.mark.parametrize("error", ["text", 7, ["text"], {"code": 0}])
def test_an_error_of_any_type_is_an_error(error: object) -> None:
    assert isinstance(refused(json.dumps({"error": error}).encode()), GeminiFailed)


@pytest.mark.parametrize(
    ("usage", "known"),
    [({"candidatesTokenCount": 1}, True), ({"candidatesTokenCount": 0}, None), ({}, None),
     ({"candidatesTokenCount": None}, None), ({"candidatesTokenCount": True}, None),
     ({"candidatesTokenCount": "7"}, True), ({"candidatesTokenCount": "many"}, None),
     ({"candidates_token_count": 7}, True), ({"candidatesTokensDetails": [{"tokenCount": 7}]}, True)],
)  # fmt: skip
def test_billed_is_what_the_usage_shows(usage: dict[str, Any], known: bool | None) -> None:
    assert billed(usage) is known


@pytest.mark.parametrize("usage", [None, 7, "x", []])
def test_an_invalid_usage_does_not_lose_the_picture(usage: object) -> None:
    reply = read_reply(answer(picture(b"1"), usage=usage))
    assert (reply.picture, reply.usage) == (b"1", {})


def test_a_usage_is_reduced_to_valid_json() -> None:
    deep: dict[str, Any] = {}
    for _ in range(150):
        deep = {"deep": [deep]}
    usage = USAGE | {"cut \ud83d": [{"modality": "cut \ud83d"}], "more": deep}
    got = read_reply(answer(picture(b"1"), usage=usage)).usage
    assert got
    assert got.items() >= USAGE.items()
    assert got["cut ?"] == [{"modality": "cut ?"}]
    assert b"deep" in TypeAdapter(dict[str, Any]).dump_json(got)


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        ([picture(PNG), picture(b"some sound")], PNG),
        ([picture(PNG), {"inlineData": {"data": "!"}}], PNG),
        ([picture(PNG, thought=True), picture(b"no picture")], b"no picture"),
        ([{"text": f"![]({URI})", "thought": True}, picture(PNG)], PNG),
        ([{"text": f"First {URI}, then data:text/plain;base64,AAAA."}], PNG),
        ([{"text": "data:image/avif;base64,AAAA"}], bytes(3)),
        ([{"fileData": {"mimeType": "image/png", "fileUri": URI}}], PNG),
        ([{"inline_data": {"mime_type": "image/png", "data": DATA}}], PNG),
        ([{"InlineData": {"DATA": DATA}, "inlineData": None}], PNG),
        ([{"inlineData": [{"data": DATA}]}], PNG),
        ([[picture(PNG)]], PNG),
    ],
)
def test_a_picture_is_preferred_to_other_data(parts: list[Any], wanted: bytes) -> None:
    assert read_reply(answer(*parts)).picture == wanted


def test_chunks_are_merged_by_candidate() -> None:
    pieces = [
        {"candidates": [{"index": 1, "content": {"parts": [picture(b"other")]}}]},
        {"candidates": [{"index": 0, "content": {"parts": [picture(PNG)]}}, {"index": 1, "finishReason": "STOP"}]},
        {"usage_metadata": USAGE},
        {"usageMetadata": {"promptTokenCount": 9}},
    ]
    reply = read_reply(json.dumps(pieces).encode())
    assert (reply.picture, reply.usage) == (b"other", USAGE)


@pytest.mark.parametrize("error", [None, {}, "", [], 0, False])
def test_an_empty_error_is_ignored(error: object) -> None:
    body = {"error": error, "candidates": [{"content": {"parts": [picture(PNG)]}}]}
    assert read_reply(json.dumps(body).encode()).picture == PNG
    assert isinstance(refused(json.dumps({"error": error}).encode()), BadReply)


def test_a_picture_beside_an_error_is_read() -> None:
    body = {"error": {"code": 500}, "candidates": [{"content": {"parts": [picture(PNG)]}}]}
    assert read_reply(json.dumps(body).encode()).picture == PNG


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": 503}, "usageMetadata": USAGE},
        {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": USAGE},
        {"prompt_feedback": {"block_reason": "SAFETY"}, "usage_metadata": {"candidates_token_count": 3}},
        {"candidates": [{"finishReason": "SAFETY"}], "usageMetadata": USAGE},
        {"candidates": [{"content": {"parts": [{"fileData": {"fileUri": "gs://a/b"}}]}}], "usageMetadata": USAGE},
    ],
)
def test_a_reply_that_counts_tokens_is_billed(body: dict[str, Any]) -> None:
    error = refused(json.dumps(body).encode())
    assert (error.billed, error.worth_retrying) == (True, False)


@pytest.mark.parametrize("reason", [["SAFETY"], ["STOP", ["IMAGE_SAFETY"]], "safety", [{"a": 1}, "SPII"]])
def test_a_refusal_is_recognized_in_any_spelling(reason: object) -> None:
    assert isinstance(refused(answer(finishReason=reason)), Blocked)


@pytest.mark.parametrize("reason", [["STOP"], 2, [[]], {"a": 1}, [None], True, 1.5])
def test_a_finish_reason_of_any_type_is_accepted(reason: object) -> None:
    assert isinstance(refused(answer({"text": "no"}, finishReason=reason)), NoImage)
    assert read_reply(answer(picture(PNG), finishReason=reason)).picture == PNG


@pytest.mark.parametrize(
    "candidate",
    [
        {"finishReason": "X" * (LONG + 1)},
        {"finishReason": ["X" * (LONG + 1), {"X": "X" * (LONG + 1)}]},
        {"finishReason": {"X" * (LONG + 1): "X"}},
        {"finishReason": "OTHER", "finishMessage": ["X" * (LONG + 1)]},
        {"finishReason": "OTHER", "finishMessage": {"X": {"X": "X" * (LONG + 1)}}},
    ],
)
def test_a_long_reason_or_message_is_quoted_as_it_is(candidate: dict[str, Any]) -> None:
    error = refused(answer(**candidate))
    assert "X" * 100 in error.detail
    assert wire._PLACEHOLDER[:8] not in error.detail.lower()


def test_a_long_message_of_an_error_is_quoted_as_it_is() -> None:
    body = {"error": {"message": [{"X": "X" * (LONG + 1)}]}}
    assert "X" * 100 in refused(json.dumps(body).encode()).detail


@pytest.mark.parametrize("parts", [[KEY[:12], KEY[12:]], [KEY[:9], [KEY[9:14], KEY[14:]]], list(KEY)])
def test_a_key_that_is_split_between_values_is_hidden(parts: Any) -> None:
    nested = {"a": parts}
    bodies: list[Any] = [
        {"candidates": [{"finishReason": parts}]},
        {"candidates": [{"finishReason": KEY[:12], "finishMessage": KEY[12:]}]},
        {"candidates": [{"finishReason": "OTHER", "finishMessage": parts}]},
        {"candidates": [{"content": {"parts": [{"text": part} for part in KEY]}}]},
        {"error": {"message": parts}},
        {"error": {"message": nested}},
        {"promptFeedback": {"blockReason": parts, "blockReasonMessage": parts}},
    ]
    for body in bodies:
        with pytest.raises(GeminiError) as caught:
            read_reply(json.dumps(body).encode(), KEY)
        assert re.sub(r"\W", "", KEY).lower() not in re.sub(r"\W", "", caught.value.detail).lower()
        assert "[key]" in caught.value.detail


@pytest.mark.parametrize("usage", [{"notes": [KEY[:12], KEY[12:]]}, {KEY[:12]: KEY[12:]}])
def test_a_usage_in_which_the_key_is_split_is_dropped(usage: dict[str, Any]) -> None:
    assert read_reply(answer(picture(PNG), usage=usage), KEY).usage is None


def test_a_truncated_reply_with_a_text_is_no_refusal() -> None:
    whole = answer({"text": "Here it comes:"}) + answer(picture(PNG))
    assert isinstance(refused(whole[:-200]), BadReply)


def test_a_reply_with_only_a_file_uri_says_so() -> None:
    assert "address" in refused(answer({"fileData": {"fileUri": "https://x"}}, {"text": "There."})).detail


@pytest.mark.parametrize(
    ("size", "passed"), [(10, True), (4000, True), (16_000, True), (17_000, False), (10**6, False)]
)
def test_a_usage_above_16_kib_is_dropped(size: int, passed: bool) -> None:
    usage = USAGE | {"note": "x" * size}
    assert read_reply(answer(picture(PNG), usage=usage)).usage == (usage if passed else None)


def test_numbers_that_json_cannot_represent_are_null() -> None:
    body = answer(picture(PNG)).replace(b"1129", b"1e999").replace(b": 9,", b": " + b"9" * 400 + b",")
    assert read_reply(body).usage == {"promptTokenCount": None, "candidatesTokenCount": 1120, "totalTokenCount": None}


def test_an_unexpected_exception_is_a_bad_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(body: object) -> None:
        raise MemoryError

    monkeypatch.setattr("service.gemini.wire.read", fail)
    outcome = try_reply(b"{}")
    assert isinstance(outcome, BadReply)
    assert outcome.billed is None
    nested = b'{"candidates": [{"content": {"parts": ' + b"[" * 800 + b"]" * 800 + b"}}]}"
    monkeypatch.undo()
    assert isinstance(try_reply(nested), BadReply)
