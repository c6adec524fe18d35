"""A reply of Gemini: the picture in it, or a typed reason why there is none."""

import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import BadReply, Blocked, GeminiError, GeminiFailed, NoImage
from service.gemini import blobs, wire
from service.gemini.wire import Answer, Bytes, Json
from service.imaging.formats import sniff
from service.quoting import excerpt, visible, whole_characters, without_key, without_secrets

log = logging.getLogger(__name__)

# Reasons of finishReason that are a refusal; every other one without a picture means that nothing was drawn.
REFUSALS = frozenset({
    "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII",
    "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
})  # fmt: skip
# Levels of a usage that are kept; it has three.
DEEPEST = 16
# The most of a usage, as JSON, that is passed on.
MAX_USAGE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """The bytes that Gemini sent as its picture, whatever they are, and what it says they cost in tokens.

    `usage` is None when it is too large to be passed on.
    """

    picture: bytes
    usage: Json | None


@dataclass(frozen=True, slots=True)
class _Blob:
    """A picture as it lies in a reply, and whether it is only a draft."""

    data: bytes | memoryview
    draft: bool

    @property
    def is_picture(self) -> bool:
        return sniff(blobs.head(self.data)) is not None


def read_reply(body: Bytes, key: str = "") -> Reply:
    """The picture of a reply: of the first candidate with any, the last that is no draft, else the last draft.

    Several values are one reply in pieces. `key` is the secret that no quoted word may show. Raises GeminiError; slow
    for large pictures.
    """
    return _Reader(wire.read(body), key).read()


def try_reply(body: Bytes, key: str = "") -> Reply | GeminiError:
    """The same with the error as a value, whose trace would keep the body in memory.

    Whatever goes wrong, the reply may have been paid for and is to be kept: that is what a BadReply leads to.
    """
    try:
        return read_reply(body, key)
    except GeminiError as error:
        return error.with_traceback(None)
    except Exception:
        log.exception("a reply could not be read")
        return BadReply("Gemini's reply cannot be read", billed=None)


def billed(usage: Json) -> bool | None:
    """True when candidate tokens were counted; None when nothing is known."""
    details = _dicts(_get(usage, "candidatesTokensDetails"))
    counts = [_get(usage, "candidatesTokenCount"), *(_get(each, "tokenCount") for each in details)]
    return True if any(map(_positive, counts)) else None


def _positive(count: object) -> bool:
    """As the SDK reads it: a number, or its digits as a string."""
    try:
        return not isinstance(count, bool) and isinstance(count, int | float | str) and float(count) > 0
    except ValueError:
        return False


class _Reader:
    def __init__(self, answer: Answer, key: str) -> None:
        self._answer = answer
        self._key = key
        self._usage = self._last_usage()
        self._billed = billed(self._usage)
        self._candidates = list(self._merged_candidates())

    def read(self) -> Reply:
        found = next(filter(None, (list(self._blobs(parts)) for parts, _ in self._candidates)), [])
        if not found:
            raise self._why_not()
        picture = _decoded(found)
        if picture is None:
            raise BadReply("the picture in Gemini's reply is not base64", billed=self._billed)
        return Reply(picture, self._carriable_usage())

    def _last_usage(self) -> Json:
        """Of several the last that counts candidate tokens: each piece of a reply counts all that came before it."""
        usages = [usage for usage in self._dicts_of("usageMetadata") if usage]
        return next((usage for usage in reversed(usages) if billed(usage)), usages[-1] if usages else {})

    def _dicts_of(self, name: str) -> Iterator[Json]:
        for each in self._answer.objects:
            yield from _dicts(_get(each, name))

    def _merged_candidates(self) -> Iterator[tuple[list[Json], Json]]:
        """The parts of each candidate, and its other fields, the last value of each."""
        merged: dict[int, tuple[list[Json], Json]] = {}
        for each in self._answer.objects:
            for position, candidate in enumerate(_dicts(_get(each, "candidates"))):
                index = _get(candidate, "index")
                parts, fields = merged.setdefault(index if isinstance(index, int) else position, ([], {}))
                for content in _dicts(_get(candidate, "content")):
                    parts.extend(_dicts(_get(content, "parts")))
                fields.update({_plain(name): value for name, value in candidate.items() if value})
        yield from merged.values()

    def _blobs(self, parts: Sequence[Json]) -> Iterator[_Blob]:
        for part in parts:
            draft = _get(part, "thought") is True
            for inline in _dicts(_get(part, "inlineData")):
                if data := _get(inline, "data"):
                    yield _Blob(self._encoded(data), draft)
            files = (_get(each, "fileUri") for each in _dicts(_get(part, "fileData")))
            for text in (_get(part, "text"), *files):
                yield from (_Blob(data, draft) for data in self._uris(text))

    def _encoded(self, data: object) -> bytes | memoryview:
        long = self._answer.long(data)
        if long:
            return long.encoded()
        # What is no string is no base64 either.
        return data.encode(errors="replace") if isinstance(data, str) else b"?"

    def _uris(self, text: object) -> Iterator[bytes]:
        """The pictures in a text; a data URI of anything else is part of the text."""
        for mime, data in blobs.data_uris(self._answer.text(text)):
            encoded = data.encode()
            if mime.startswith("image/") or sniff(blobs.head(encoded)):
                yield encoded

    def _why_not(self) -> GeminiError:
        if error := next(filter(None, (_get(each, "error") for each in self._answer.objects)), None):
            message = _get(error, "message") if isinstance(error, dict) else error
            return GeminiFailed(f"Gemini answered an error: {self._excerpt(message)}", billed=self._billed)
        for feedback in self._dicts_of("promptFeedback"):
            if reason := _get(feedback, "blockReason"):
                message = _get(feedback, "blockReasonMessage")
                return Blocked(self._sentence("Gemini refused the prompt", reason, message), billed=bool(self._billed))
        parts, fields = self._candidates[0] if self._candidates else ([], {})
        reason, message = fields.get("finishreason"), fields.get("finishmessage")
        if REFUSALS & set(self._names(reason)):
            return Blocked(self._sentence("Gemini refused to draw", reason, message), billed=self._billed)
        return self._why_nothing_drawn(parts, reason, message)

    def _why_nothing_drawn(self, parts: Sequence[Json], reason: object, message: object) -> GeminiError:
        text = " ".join(filter(None, (self._answer.text(_get(part, "text")) for part in parts)))
        if not self._answer.whole:
            return BadReply("Gemini's reply cannot be read", billed=self._billed)
        if any(_get(part, "fileData") for part in parts):
            return BadReply("Gemini sent only the address of a picture, which is not fetched", billed=self._billed)
        if reason or text:
            return NoImage(self._sentence("Gemini sent no picture", reason, message or text), billed=self._billed)
        return BadReply("Gemini's reply holds neither a picture nor a reason", billed=self._billed)

    def _sentence(self, what: str, reason: object, more: object) -> str:
        names = excerpt(", ".join(self._names(reason)), self._key) or "no reason given"
        sentence = f"{what} ({names})" + (f": {self._excerpt(more)}" if more else "")
        # The key may be cut over both.
        return without_key(sentence, self._key)

    def _names(self, reason: object) -> list[str]:
        """A reason in capitals, as the SDK reads it; of a list each, of a number its digits."""
        if isinstance(reason, list):
            return [name for each in reason for name in self._names(each)]
        return [self._words(reason).upper()] if reason else []

    def _excerpt(self, text: object) -> str:
        return excerpt(self._words(text) if text else "no message", self._key)

    def _words(self, value: object) -> str:
        """Any value as a text, its long strings included."""
        return self._answer.text(value) if isinstance(value, str) else str(_copied(value, self._answer.text))

    def _quoted(self, text: str) -> str:
        # What makes the usage too large to be passed on needs no search.
        return text if len(text) > MAX_USAGE_BYTES else visible(whole_characters(without_secrets(text, self._key)))

    def _carriable_usage(self) -> Json | None:
        usage: Json = _copied(self._usage, lambda text: self._quoted(self._answer.text(text)))
        dumped = json.dumps(usage, ensure_ascii=False)
        # The key may be cut over several values.
        carriable = len(dumped.encode()) <= MAX_USAGE_BYTES and without_key(dumped, self._key) == dumped
        return usage if carriable else None


def _copied(value: Any, words: Callable[[str], str], depth: int = DEEPEST) -> Any:
    """A copy that an answer can carry: names spelled as Google does, strings as `words` has them, no endless nests."""
    if isinstance(value, str):
        return words(value)
    if isinstance(value, dict | list) and not depth:
        return None
    if isinstance(value, dict):
        return {words(_camel(name)): _copied(each, words, depth - 1) for name, each in value.items()}
    if isinstance(value, list):
        return [_copied(each, words, depth - 1) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _decoded(found: Sequence[_Blob]) -> bytes | None:
    """The last picture that is no draft, else the last draft; what is no picture only if there is none."""
    newest = ([blob for blob in found if not blob.draft] or found)[::-1]
    for blob in sorted(newest, key=lambda blob: not blob.is_picture):
        try:
            return blobs.decode(blob.data)
        except ValueError:
            continue
    return None


def _get(value: Json, name: str) -> Any:
    """A field, spelled as Google does or in any other way: inlineData, inline_data; the first that holds anything."""
    if held := value.get(name):
        return held
    wanted = _plain(name)
    return next((each for key, each in value.items() if each and _plain(key) == wanted), value.get(name))


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _camel(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])_([a-z0-9])", lambda match: match[1].upper(), name)


def _dicts(value: object) -> Iterator[Json]:
    """The objects in a value, one or a list of them."""
    if isinstance(value, dict):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _dicts(each)
