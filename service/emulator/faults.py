"""The faults that the emulator can play, by name."""

from aiohttp import web
from PIL import ImageOps

from service.emulator.responders import (
    PendingRequest,
    Responder,
    blocked,
    cut,
    edited,
    error,
    finished,
    hang_up,
    parts,
    raw,
    redirect,
    repainted,
    resaved,
    saved,
    wrapped,
)
from service.emulator.wire import Json, detail, dump, picture_part
from service.emulator.wire import error as error_body
from service.emulator.wrappings import WRAPPINGS


def _file_uri(body: Json) -> None:
    uri = "https://files.example/v1/files/abc"
    body["candidates"][0]["content"]["parts"] = [{"fileData": {"mimeType": "image/png", "fileUri": uri}}]


def _huge_usage(body: Json) -> None:
    body["usageMetadata"]["notes"] = ["a note"] * 200_000


def _hidden_characters(body: Json) -> None:
    body["usageMetadata"]["note"] = "\x1b[31m\u202enot what it seems"


def _bad_base64(body: Json) -> None:
    body["candidates"][0]["content"]["parts"][0]["inlineData"]["data"] = "!not base64!"


def _unknown_finish(body: Json) -> None:
    body["candidates"][0]["finishReason"] = "FINISHED_IN_A_NEW_WAY"


def _upside_down(picture: bytes) -> bytes:
    return resaved(picture, ImageOps.flip)


def _grey16(picture: bytes) -> bytes:
    return resaved(picture, lambda image: image.convert("L").convert("I;16").point(lambda level: level * 257))


async def _drop(pending: PendingRequest) -> web.StreamResponse:
    return hang_up(pending)


async def _hang(pending: PendingRequest) -> web.StreamResponse:
    await pending.closing.wait()
    return hang_up(pending)


def _retry(delay: str) -> Json:
    return detail("RetryInfo", retryDelay=delay)


def _quota(quota_id: str) -> Json:
    return detail("QuotaFailure", violations=[{"quotaId": quota_id}])


_QUOTA = "You exceeded your current quota, please check your plan and billing details."
_PER_MINUTE = _quota("GenerateRequestsPerMinutePerProjectPerModel")
_HTML = b"<!doctype html><title>Error</title><h1>502. That's an error.</h1>"

FINISH_REASONS = [
    "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "LANGUAGE", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII",
    "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_OTHER", "NO_IMAGE", "IMAGE_RECITATION", "MALFORMED_RESPONSE",
]  # fmt: skip
BLOCK_REASONS = ("SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY")

FAULTS: dict[str, Responder] = {
    # error statuses
    "bad_request": error(400, "Request contains an invalid argument."),
    "bad_key": error(
        400, "API key not valid. Please pass a valid API key.", detail("ErrorInfo", reason="API_KEY_INVALID")
    ),
    "bad_location": error(400, "User location is not supported for the API use.", status="FAILED_PRECONDITION"),
    "unauthenticated": error(401, "Request had invalid authentication credentials."),
    "permission_denied": error(403, "Your project has been denied access."),
    "not_found": error(404, "models/… is not found for this API version."),
    "rate_limited": error(429, _QUOTA, _PER_MINUTE, _retry("0.3s")),
    "rate_limited_long": error(429, _QUOTA, _PER_MINUTE, _retry("3600s")),
    "rate_limited_header": error(429, "Resource has been exhausted (e.g. check quota).", retry_after="1"),
    "rate_limited_bare": error(429, "Resource has been exhausted (e.g. check quota)."),
    "daily_quota": error(429, _QUOTA, _quota("GenerateRequestsPerDayPerProjectPerModel"), _retry("2.4s")),
    "zero_quota": error(
        429, f"{_QUOTA} Quota exceeded for metric: generate_requests, limit: 0", _PER_MINUTE, _retry("2.4s")
    ),
    "internal": error(500, "An internal error has occurred."),
    "unavailable": error(503, "The model is overloaded. Please try again later."),
    "deadline_exceeded": error(504, "The request timed out. Please try again."),
    # malformed replies
    "no_content": raw(204),
    "server_error_html": raw(502, _HTML, "text/html"),
    "server_error_not_json": raw(500, b"upstream connect error"),
    "malformed": raw(200, b'{"candidates": [{"content":'),
    "html": raw(200, _HTML, "text/html"),
    "empty_body": raw(200),
    "empty_object": raw(200, b"{}"),
    "list": raw(200, b"[]"),
    "error_in_200": raw(200, dump(error_body(503, "The model is overloaded. Please try again later."))),
    "null": raw(200, b"null"),
    "number": raw(200, b"7"),
    "wrong_candidates": raw(200, b'{"candidates": "none"}'),
    "wrong_candidate": raw(200, b'{"candidates": [7]}'),
    "wrong_content": raw(200, b'{"candidates": [{"content": "none"}]}'),
    "bad_base64": edited(_bad_base64),
    # refusals, and other fields of the reply
    **{f"blocked_{reason.lower()}": blocked(reason) for reason in BLOCK_REASONS},
    "blocked_unknown": blocked("BLOCKED_IN_A_NEW_WAY"),
    **{f"finish_{reason.lower()}": finished(reason, f"Stopped: {reason}.") for reason in FINISH_REASONS},
    "finish_unknown": edited(_unknown_finish),
    "no_candidates": edited(lambda body: body.update(candidates=[]), billed=False),
    "no_usage": edited(lambda body: body.pop("usageMetadata")),
    "error_in_200_billed": edited(lambda body: body.update(error_body(503, "Late."), candidates=[])),
    "blocked_billed": edited(lambda body: body.update(promptFeedback={"blockReason": "SAFETY"}, candidates=[])),
    "huge_usage": edited(_huge_usage),
    "hidden_characters": edited(_hidden_characters),
    "file_uri": edited(_file_uri),
    **{f"redirect_{status}": redirect(status, "") for status in (300, 301, 302, 303, 307, 308)},
    "redirect_nowhere": redirect(307, None),
    "not_modified": raw(304),
    **{name: wrapped(wrapping) for name, wrapping in WRAPPINGS.items()},
    # parts
    "text_only": parts(lambda _: [{"text": "I can describe it, but not draw it."}]),
    "text_beside": parts(lambda picture: [{"text": "Here it is:"}, picture_part(picture), {"text": "Enjoy."}]),
    "draft_first": parts(
        lambda picture: [{**picture_part(_upside_down(picture)), "thought": True}, picture_part(picture)]
    ),
    "drafts_only": parts(
        lambda picture: [{**picture_part(one), "thought": True} for one in (_upside_down(picture), picture)]
    ),
    "several": parts(lambda picture: [picture_part(_upside_down(picture)), picture_part(picture)]),
    # pictures
    "jpeg": saved("JPEG", mime_type="image/jpeg"),
    "webp": saved("WEBP", mime_type="image/webp"),
    "jpeg_as_png": saved("JPEG"),
    "webp_as_png": saved("WEBP"),
    "gif": saved("GIF", mime_type="image/gif"),
    "rgba": saved("PNG", "RGBA"),
    "grey": saved("PNG", "L"),
    "palette": saved("PNG", "P"),
    "cmyk": saved("JPEG", "CMYK", "image/jpeg"),
    "grey16": repainted(_grey16),
    "not_a_picture": repainted(lambda _: b"these bytes are no picture"),
    "truncated_picture": repainted(lambda picture: picture[: len(picture) // 2]),
    # the connection
    "drop": _drop,
    "half_body": cut(with_length=True),
    "cut_at_eof": cut(with_length=False),
    "hang": _hang,
}
