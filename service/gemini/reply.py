"""A reply of Gemini: the picture in it, or a typed reason why there is none."""

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from service.errors import BadReply, Blocked, GeminiError, GeminiFailed, NoImage, whole_characters

# Reasons of finishReason that are a refusal; every other one without a picture means that nothing was drawn.
REFUSALS = frozenset({
    "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII",
    "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
})  # fmt: skip
EXCERPT = 200
# Levels of a usage that are kept; it has three.
DEEPEST = 16


@dataclass(frozen=True, slots=True)
class Reply:
    """The bytes that Gemini sent as its picture, whatever they are, and what it says they cost in tokens."""

    picture: bytes
    usage: dict[str, Any]

    @property
    def billed(self) -> bool | None:
        return billed(self.usage)


def billed(usage: dict[str, Any]) -> bool | None:
    """True when candidate tokens were counted; None when nothing is known."""
    tokens = usage.get("candidatesTokenCount")
    return True if isinstance(tokens, int) and tokens > 0 else None


def read_reply(body: bytes | bytearray) -> Reply:
    """The picture of a 200 answer: of the first candidate with any, the last that is no draft, else the last draft.

    Raises GeminiError.
    """
    try:
        # Decoded first: json would decode bytes in a way that takes three times as long.
        answer = json.loads(body.decode()) if body else {}
    except (ValueError, RecursionError):
        raise BadReply("Gemini's reply is not JSON", billed=None) from None
    if not isinstance(answer, dict) or not answer:
        raise BadReply("Gemini's reply is empty", billed=None)
    if "error" in answer:
        raise GeminiFailed(f"Gemini answered an error: {_excerpt(_dict(answer['error']).get('message'))}")
    usage = _carriable(_dict(answer.get("usageMetadata")))
    candidates = list(_dicts(answer.get("candidates")))
    pictures = next(filter(None, map(_pictures, candidates)), [])
    if not pictures:
        raise _why_not(answer, next(iter(candidates), {}), usage)
    finished = [part for part in pictures if part.get("thought") is not True]
    data = (finished or pictures)[-1]["inlineData"]["data"]
    return Reply(_decode(data, usage), usage)


def _pictures(candidate: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for part in _parts(candidate) if _dict(part.get("inlineData")).get("data")]


def _parts(candidate: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return _dicts(_dict(candidate.get("content")).get("parts"))


def _carriable(value: Any, depth: int = DEEPEST) -> Any:
    """A copy without half characters and endless nests, of which no answer can carry any."""
    if isinstance(value, str):
        return whole_characters(value)
    if isinstance(value, dict):
        return {_carriable(key): _carriable(each, depth - 1) for key, each in value.items()} if depth else None
    if isinstance(value, list):
        return [_carriable(each, depth - 1) for each in value] if depth else None
    return value


def _decode(data: object, usage: dict[str, Any]) -> bytes:
    """Google sends standard base64, its SDK the URL-safe kind: both are accepted."""
    if isinstance(data, str):
        try:
            return base64.b64decode(_standard(data), validate=True)
        except (binascii.Error, ValueError):
            pass
    raise BadReply("the picture in Gemini's reply is not base64", billed=billed(usage))


def _standard(data: str) -> str:
    return data.replace("-", "+").replace("_", "/") if "-" in data or "_" in data else data


def _why_not(answer: dict[str, Any], candidate: dict[str, Any], usage: dict[str, Any]) -> GeminiError:
    feedback = _dict(answer.get("promptFeedback"))
    if reason := feedback.get("blockReason"):
        return Blocked(_sentence("Gemini refused the prompt", reason, feedback.get("blockReasonMessage")), billed=False)
    if not candidate:
        return BadReply("Gemini's reply is empty", billed=billed(usage))
    reason, message = candidate.get("finishReason"), candidate.get("finishMessage")
    if reason in REFUSALS:
        return Blocked(_sentence("Gemini refused to draw", reason, message), billed=billed(usage))
    text = " ".join(str(part["text"]) for part in _parts(candidate) if part.get("text"))
    if not reason and not text:
        return BadReply("Gemini's reply holds neither a picture nor a reason", billed=billed(usage))
    return NoImage(_sentence("Gemini sent no picture", reason, message or text), billed=billed(usage))


def _sentence(what: str, reason: object, more: object) -> str:
    return f"{what} ({reason or 'no reason given'})" + (f": {_excerpt(more)}" if more else "")


def _excerpt(text: object) -> str:
    plain = " ".join(str(text or "no message").split())
    return plain if len(plain) <= EXCERPT else f"{plain[:EXCERPT]}…"


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))
