"""Reads a reply of Gemini: its picture, or a typed error if there is none."""

import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import BadReply, Blocked, GeminiError, GeminiFailed, NoImage
from service.gemini import blobs, wire
from service.gemini.wire import Bytes, Json, ParsedReply
from service.imaging.formats import sniff
from service.quoting import excerpt, visible, without_key, without_secrets, without_surrogates

log = logging.getLogger(__name__)

# The values of finishReason that are refusals; with any other, and no picture, Gemini drew nothing.
REFUSALS = frozenset({
    "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII",
    "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
})  # fmt: skip
# The nesting of a usage beyond which it is cut; Gemini's has three levels.
DEEPEST = 16
# A usage of more JSON than this is dropped.
MAX_USAGE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """The bytes that Gemini sent as its picture, not checked, and its usageMetadata; None if that is too large."""

    picture: bytes
    usage: Json | None


@dataclass(frozen=True, slots=True)
class _Blob:
    """A picture in base64, and whether it is a draft (a thought)."""

    data: bytes | memoryview
    draft: bool

    @property
    def is_picture(self) -> bool:
        return sniff(blobs.head(self.data)) is not None


def read_reply(body: Bytes, key: str = "") -> Reply:
    """Read the picture: the last one of the first candidate with any, preferring pictures that are not drafts.

    Several JSON values are the chunks of one reply. `key` is removed from all quoted text. Raises GeminiError. Slow for
    large pictures.
    """
    return _Reader(wire.read(body), key).read()


def try_reply(body: Bytes, key: str = "") -> Reply | GeminiError:
    """The same with the error as a value, because its traceback would keep the body in memory.

    An unexpected exception becomes a BadReply, so that the reply, which may have been billed, is stored.
    """
    try:
        return read_reply(body, key)
    except GeminiError as error:
        return error.with_traceback(None)
    except Exception:
        log.exception("a reply could not be read")
        return BadReply("Gemini's reply cannot be read", billed=None)


def read_usage(body: Bytes, key: str = "") -> Json | None:
    """The usageMetadata of a reply or an error; None if there is none, or it is too large."""
    return _Reader(wire.read(body), key).usage


def billed(usage: Json) -> bool | None:
    """True if the usage counts candidate tokens, else None: unknown."""
    details = _dicts(_get(usage, "candidatesTokensDetails"))
    counts = [_get(usage, "candidatesTokenCount"), *(_get(each, "tokenCount") for each in details)]
    return True if any(map(_positive, counts)) else None


def _positive(count: object) -> bool:
    """Whether a count is above 0; like the SDK, accepts a number as a string."""
    try:
        return not isinstance(count, bool) and isinstance(count, int | float | str) and float(count) > 0
    except ValueError:
        return False


class _Reader:
    def __init__(self, parsed: ParsedReply, key: str) -> None:
        self._parsed = parsed
        self._key = key
        self._usage = self._last_usage()
        self._billed = billed(self._usage)
        self._candidates = list(self._merged_candidates())

    def read(self) -> Reply:
        try:
            return self._read()
        except GeminiError as error:
            error.usage = self.usage
            raise

    def _read(self) -> Reply:
        found = next(filter(None, (list(self._blobs(parts)) for parts, _ in self._candidates)), [])
        if not found:
            raise self._error()
        picture = _decoded(found)
        if picture is None:
            raise BadReply("the picture in Gemini's reply is not base64", billed=self._billed)
        return Reply(picture, self.usage)

    def _last_usage(self) -> Json:
        """The last usage that counts candidate tokens: each chunk of a reply includes the counts of those before it."""
        usages = [usage for usage in self._dicts_of("usageMetadata") if usage]
        return next((usage for usage in reversed(usages) if billed(usage)), usages[-1] if usages else {})

    def _dicts_of(self, name: str) -> Iterator[Json]:
        for each in self._parsed.objects:
            yield from _dicts(_get(each, name))

    def _merged_candidates(self) -> Iterator[tuple[list[Json], Json]]:
        """The parts of each candidate from all chunks, and its other fields, where the last chunk wins."""
        merged: dict[int, tuple[list[Json], Json]] = {}
        for each in self._parsed.objects:
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
        long = self._parsed.long(data)
        if long:
            return long.encoded()
        # Any other type is invalid base64.
        return data.encode(errors="replace") if isinstance(data, str) else b"?"

    def _uris(self, text: object) -> Iterator[bytes]:
        """The pictures in a text; data URIs of other types are left alone."""
        for mime, data in blobs.data_uris(self._parsed.text(text)):
            encoded = data.encode()
            if mime.startswith("image/") or sniff(blobs.head(encoded)):
                yield encoded

    def _error(self) -> GeminiError:
        if error := next(filter(None, (_get(each, "error") for each in self._parsed.objects)), None):
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
        return self._no_picture_error(parts, reason, message)

    def _no_picture_error(self, parts: Sequence[Json], reason: object, message: object) -> GeminiError:
        text = " ".join(filter(None, (self._parsed.text(_get(part, "text")) for part in parts)))
        if not self._parsed.complete:
            return BadReply("Gemini's reply cannot be read", billed=self._billed)
        if any(_get(part, "fileData") for part in parts):
            return BadReply("Gemini sent only the address of a picture, which is not fetched", billed=self._billed)
        if reason or text:
            return NoImage(self._sentence("Gemini sent no picture", reason, message or text), billed=self._billed)
        return BadReply("Gemini's reply holds neither a picture nor a reason", billed=self._billed)

    def _sentence(self, what: str, reason: object, more: object) -> str:
        names = excerpt(", ".join(self._names(reason)), self._key) or "no reason given"
        sentence = f"{what} ({names})" + (f": {self._excerpt(more)}" if more else "")
        # The key may be split between both.
        return without_key(sentence, self._key)

    def _names(self, reason: object) -> list[str]:
        """A finish or block reason in upper case, as the SDK reads it; each item of a list, a number as its digits."""
        if isinstance(reason, list):
            return [name for each in reason for name in self._names(each)]
        return [self._words(reason).upper()] if reason else []

    def _excerpt(self, text: object) -> str:
        return excerpt(self._words(text) if text else "no message", self._key)

    def _words(self, value: object) -> str:
        """Any JSON value as text, with placeholders resolved."""
        return self._parsed.text(value) if isinstance(value, str) else str(_copied(value, self._parsed.text))

    def _quoted(self, text: str) -> str:
        # A longer string makes the usage too large anyway: no need to search it.
        return text if len(text) > MAX_USAGE_BYTES else visible(without_surrogates(without_secrets(text, self._key)))

    @property
    def usage(self) -> Json | None:
        """The usage as it may be shown."""
        usage: Json = _copied(self._usage, lambda text: self._quoted(self._parsed.text(text)))
        dumped = json.dumps(usage, ensure_ascii=False)
        # The key may be split between several values.
        showable = len(dumped.encode()) <= MAX_USAGE_BYTES and without_key(dumped, self._key) == dumped
        return usage if showable else None


def _copied(value: Any, convert: Callable[[str], str], depth: int = DEEPEST) -> Any:
    """A copy that can be sent as JSON: names in camelCase, strings converted, at most `depth` levels."""
    if isinstance(value, str):
        return convert(value)
    if isinstance(value, dict | list) and not depth:
        return None
    if isinstance(value, dict):
        return {convert(_camel(name)): _copied(each, convert, depth - 1) for name, each in value.items()}
    if isinstance(value, list):
        return [_copied(each, convert, depth - 1) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _decoded(found: Sequence[_Blob]) -> bytes | None:
    """The last one that is not a draft, else the last draft; bytes of an unknown type only if there is no picture."""
    newest = ([blob for blob in found if not blob.draft] or found)[::-1]
    for blob in sorted(newest, key=lambda blob: not blob.is_picture):
        try:
            return blobs.decode(blob.data)
        except ValueError:
            continue
    return None


def _get(value: Json, name: str) -> Any:
    """A field under any spelling (inlineData, inline_data): the first that is not empty."""
    if held := value.get(name):
        return held
    wanted = _plain(name)
    return next((each for key, each in value.items() if each and _plain(key) == wanted), value.get(name))


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _camel(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])_([a-z0-9])", lambda match: match[1].upper(), name)


def _dicts(value: object) -> Iterator[Json]:
    """The objects in a value: itself, or those of a list, nested or not."""
    if isinstance(value, dict):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _dicts(each)
