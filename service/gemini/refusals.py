"""Gemini's error statuses as our errors: what may be sent again and when, and what is known of the price."""

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
from service.quoting import excerpt

# The most that Google's Duration can say, some 10,000 years.
LONGEST_DELAY_SECONDS = 315_576_000_000
LASTING_RETRY_AFTER_SECONDS = 3600

# A quota of a day, or of nothing at all, does not clear within a request.
_LASTING_QUOTA = re.compile(r'per[ _-]?day|daily|limit:\s*0(?![\d.])|"quotaValue":\s*"?0\b', re.IGNORECASE | re.ASCII)
# Money that ran out, or that may not be spent. The usual quota error ("please check your plan and billing details")
# is none of these.
_CREDITS = re.compile(
    r"(?:pre-?pa(?:y|id)\w*|credits?|account balance)\b.{0,60}?"
    r"\b(?:deplet|exhaust|used up|insufficient|too low|r[au]n out|expired)"
    r"|\b(?:deplet\w*|insufficient|out of|no remaining)\b.{0,40}?\b(?:pre-?pa(?:y|id)|credits?\b|account balance|funds)"
    r"|\bspend(?:ing)?[ _-]*(?:cap\b|limit|budget)"
    r"|\bbilling\b.{0,60}?\b(?:disabled|not (?:been )?(?:enabled|active)|inactive|closed|suspended|past due)"
    r"|\b(?:disabled|enable|activate)\b.{0,20}?\bbilling|billing_(?:disabled|not_active)",
    re.IGNORECASE | re.ASCII | re.DOTALL,
)
# Searched, not parsed: it counts in a body that is cut or no JSON, too.
_TOKENS_COUNTED = re.compile(rb'"candidates_?token_?count"\s*:\s*"?[1-9]', re.IGNORECASE)
_CANDIDATES = re.compile(rb'"candidates"\s*:', re.IGNORECASE)
_INLINE_DATA = re.compile(rb'"inline_?data"\s*:\s*[{\[]', re.IGNORECASE)
_DELAY = re.compile(r"([0-9]+(?:\.[0-9]+)?)s?")


class NotExecuted(Exception):
    """Gemini did nothing with a call, so it may be sent again, not before `seconds` if it said so."""

    def __init__(self, error: GeminiError, seconds: float | None = None) -> None:
        super().__init__(error.detail)
        self.error = error
        self.seconds = seconds


@dataclass(eq=False)
class ErrorStatus(Exception):
    """An answer with a status of 400 or more; `body` as far as it came, `whole` if that is all of it.

    No word that is quoted from it may hold `key`.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool
    key: str = ""

    @cached_property
    def text(self) -> str:
        return self.body.decode("utf-8-sig", "replace")

    @cached_property
    def error(self) -> dict[str, Any]:
        """Google's error object, also bare, as a text, or in an array of one; empty if there is none."""
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
    """What an error status means: NotExecuted for 429 and 503, unless tokens were counted or a picture came."""
    if _TOKENS_COUNTED.search(answer.body) or _picture_came(answer.body):
        return _error(answer, billed=True)
    if answer.status in (429, 503):
        # A quota that lasts asks for more time than any call has.
        return NotExecuted(_error(answer, billed=False), math.inf if _lasts(answer) else _asked_delay(answer))
    # Half an answer of a failing server may have gone on to count tokens.
    return _error(answer, billed=False if answer.whole or answer.status < 500 else None)


def retry_after(seconds: float) -> dict[str, str]:
    """The Retry-After header: whole seconds, at least one."""
    return {hdrs.RETRY_AFTER: str(max(1, math.ceil(round(seconds, 3))))}


def _picture_came(body: bytes) -> bool:
    """Whether a candidate brings a picture; one in the request, which the error may quote, is none."""
    candidates = _CANDIDATES.search(body)
    return bool(candidates and _INLINE_DATA.search(body, candidates.end()))


def _error(answer: ErrorStatus, billed: bool | None) -> GeminiError:
    headers = None
    if answer.status in (429, 503):
        headers = retry_after(max(_asked_delay(answer) or 0, LASTING_RETRY_AFTER_SECONDS if _lasts(answer) else 0))
    return _kind(answer)(_said(answer), headers=headers, billed=billed)


def _kind(answer: ErrorStatus) -> type[GeminiError]:
    status = answer.status
    if status == 429:
        return CreditsExhausted if _CREDITS.search(answer.text) else QuotaExhausted
    if status == 503:
        return GeminiUnavailable
    if status == 504:
        return GeminiTimeout
    if status in (401, 403) or (status < 500 and "API_KEY_INVALID" in answer.text):
        return GeminiAuth
    return GeminiRejected if status < 500 else GeminiFailed


def _lasts(answer: ErrorStatus) -> bool:
    """Whether it is a quota that does not clear within a request."""
    return answer.status == 429 and bool(_CREDITS.search(answer.text) or _LASTING_QUOTA.search(answer.text))


def _said(answer: ErrorStatus) -> str:
    message = answer.error.get("message") or answer.error.get("status") or answer.text
    words = excerpt(str(message), answer.key)
    return f"Gemini answered {answer.status}" + (f": {words}" if words else "")


def _asked_delay(answer: ErrorStatus) -> float | None:
    """Seconds to wait by RetryInfo in the body, else by Retry-After; None when neither says."""
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
    # By the sender's own clock, if it tells it: ours may be off by more than the delay.
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
