"""Maps Gemini's error statuses to our errors: whether and when to retry, and whether the call was billed."""

import email.utils
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from functools import cached_property
from typing import Any

from aiohttp import hdrs

from service.errors import (
    CreditsExhausted,
    GeminiAuth,
    GeminiError,
    GeminiFailed,
    GeminiRejected,
    GeminiTimeout,
    GeminiUnavailable,
    QuotaExhausted,
)
from service.gemini.reply import read_usage
from service.quoting import excerpt

# The limit of Google's Duration: 10,000 years.
LONGEST_DELAY_SECONDS = 315_576_000_000
LASTING_RETRY_AFTER_SECONDS = 3600
# Only the beginning of an error is searched for its reason: the search runs on the event loop.
SEARCHED = 16 * 1024

# A daily or zero quota does not clear within a request.
_LASTING_QUOTA = re.compile(r'per[ _-]?day|daily|limit:\s*0(?![\d.])|"quotaValue":\s*"?0\b', re.IGNORECASE | re.ASCII)
# Depleted credits, a spending cap, disabled billing; not the usual quota error ("please check your plan and billing
# details").
_CREDITS = re.compile(
    r"(?:pre-?pa(?:y|id)\w{0,20}|credits?|account balance)\b.{0,60}?"
    r"\b(?:deplet|exhaust|used up|insufficient|too low|r[au]n out|expired)"
    r"|\b(?:deplet\w{0,20}|insufficient|out of|no remaining)\b.{0,40}?"
    r"\b(?:pre-?pa(?:y|id)|credits?\b|account balance|funds)"
    r"|\bspend(?:ing)?[ _-]*(?:cap\b|limit|budget)"
    r"|\bbilling\b.{0,60}?\b(?:disabled|not (?:been )?(?:enabled|active)|inactive|closed|suspended|past due)"
    r"|\b(?:disabled|enable|activate)\b.{0,20}?\bbilling|billing_(?:disabled|not_active)",
    re.IGNORECASE | re.ASCII | re.DOTALL,
)
# Searched, not parsed, so that they are also found in a body that is cut or not JSON.
_TOKENS_COUNTED = re.compile(rb'"candidates_?token_?count"\s*:\s*"?[1-9]', re.IGNORECASE)
_CANDIDATES = re.compile(rb'"candidates"\s*:', re.IGNORECASE)
_INLINE_DATA = re.compile(rb'"inline_?data"\s*:\s*[{\[]', re.IGNORECASE)
_DELAY = re.compile(r"([0-9]+(?:\.[0-9]+)?)s?")


class NotExecuted(Exception):
    """Gemini did not execute a call, so it may be retried, after `seconds` if Gemini said so."""

    def __init__(self, error: GeminiError, seconds: float | None = None) -> None:
        super().__init__(error.detail)
        self.error = error
        self.seconds = seconds


@dataclass(eq=False)
class ErrorStatus(Exception):
    """A response with a status of 400 or more; `whole`: the body is complete. `key` is removed from all quoted text."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool
    key: str = ""

    @cached_property
    def text(self) -> str:
        return self.body.decode("utf-8-sig", "replace")

    def says(self, pattern: re.Pattern[str]) -> bool:
        """Whether the pattern matches in the first SEARCHED characters."""
        return bool(pattern.search(self.text, 0, SEARCHED))

    @cached_property
    def error(self) -> dict[str, Any]:
        """Google's error object, also if it is bare, a string, or in an array of one; empty if there is none."""
        try:
            answer = json.loads(self.text)
        except (ValueError, RecursionError):
            return {}
        if isinstance(answer, list) and len(answer) == 1:
            [answer] = answer
        error = answer.get("error", answer) if isinstance(answer, dict) else None
        if isinstance(error, str):
            return {"message": error}
        return error if isinstance(error, dict) else {}


def refusal(answer: ErrorStatus) -> GeminiError | NotExecuted:
    """The error for a response: NotExecuted for 429 and 503, unless it counts tokens or has a picture."""
    if _TOKENS_COUNTED.search(answer.body) or _has_picture(answer.body):
        error = _error(answer, billed=True)
        error.usage = read_usage(answer.body, answer.key)
        return error
    if answer.status in (429, 503):
        # A lasting quota exceeds any retry budget.
        seconds = math.inf if _is_lasting_quota(answer) else _asked_delay(answer)
        return NotExecuted(_error(answer, billed=False), seconds)
    # The missing part of a truncated 5xx may have counted tokens.
    return _error(answer, billed=False if answer.whole or answer.status < 500 else None)


def retry_after(seconds: float) -> dict[str, str]:
    """The Retry-After header: whole seconds, at least one."""
    return {hdrs.RETRY_AFTER: str(max(1, math.ceil(round(seconds, 3))))}


def _has_picture(body: bytes) -> bool:
    """Whether there is a picture in a candidate; one in the request, which an error may quote, does not count."""
    candidates = _CANDIDATES.search(body)
    return bool(candidates and _INLINE_DATA.search(body, candidates.end()))


def _error(answer: ErrorStatus, billed: bool | None) -> GeminiError:
    headers = retry_after(_retry_seconds(answer)) if answer.status in (429, 503) else None
    return _kind(answer)(_detail(answer), headers=headers, billed=billed)


def _retry_seconds(answer: ErrorStatus) -> float:
    asked = _asked_delay(answer) or 0
    return max(asked, LASTING_RETRY_AFTER_SECONDS) if _is_lasting_quota(answer) else asked


def _kind(answer: ErrorStatus) -> type[GeminiError]:
    status = answer.status
    if status == 429:
        return CreditsExhausted if answer.says(_CREDITS) else QuotaExhausted
    if status == 503:
        return GeminiUnavailable
    if status == 504:
        return GeminiTimeout
    if status in (401, 403) or (status < 500 and "API_KEY_INVALID" in answer.text):
        return GeminiAuth
    return GeminiRejected if status < 500 else GeminiFailed


def _is_lasting_quota(answer: ErrorStatus) -> bool:
    """Whether a 429 will not clear within a request: a daily or zero quota, or credits."""
    return answer.status == 429 and (answer.says(_CREDITS) or answer.says(_LASTING_QUOTA))


def _detail(answer: ErrorStatus) -> str:
    message = answer.error.get("message") or answer.error.get("status") or answer.text
    words = excerpt(str(message), answer.key)
    return f"Gemini answered {answer.status}" + (f": {words}" if words else "")


def _asked_delay(answer: ErrorStatus) -> float | None:
    """Seconds to wait by RetryInfo in the body, else by Retry-After; None without either."""
    details = answer.error.get("details")
    for info in details if isinstance(details, list) else []:
        if isinstance(info, dict) and (match := _DELAY.fullmatch(str(info.get("retryDelay", "")))):
            return _bounded(float(match[1]))
    header = answer.headers.get(hdrs.RETRY_AFTER, "").strip()
    if match := _DELAY.fullmatch(header):
        return _bounded(float(match[1]))
    moment = _timestamp(header)
    if moment is None:
        return None
    # By the sender's clock, if there is a Date: ours may differ by more than the delay.
    now = _timestamp(answer.headers.get(hdrs.DATE, ""))
    return _bounded(moment - (time.time() if now is None else now))


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST_DELAY_SECONDS)


def _timestamp(date: str) -> float | None:
    """Seconds since 1970 of an HTTP date; None for anything else."""
    try:
        moment = email.utils.parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
