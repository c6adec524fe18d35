"""The correlation ids of a request, W3C trace context and X-Request-Id, which logs show and calls to Gemini pass on."""

import re
from contextvars import ContextVar
from dataclasses import dataclass

from multidict import MultiMapping

REQUEST_ID_HEADER, TRACEPARENT_HEADER = "X-Request-Id", "traceparent"

_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
# Version, trace id, parent id, flags, and the fields that a later version may add: www.w3.org/TR/trace-context, 3.2.
_TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII
)
_VERSION = "00"


@dataclass(frozen=True, slots=True)
class CorrelationIds:
    """The `traceparent` and the request id that a request came with; empty where it has none, or an invalid one."""

    traceparent: str = ""
    request_id: str = ""

    @property
    def trace_id(self) -> str:
        return self.traceparent[3:35]

    @property
    def headers(self) -> dict[str, str]:
        """The headers by which both are passed on."""
        pairs = ((TRACEPARENT_HEADER, self.traceparent), (REQUEST_ID_HEADER, self.request_id))
        return {name: value for name, value in pairs if value}


NO_IDS = CorrelationIds()
CORRELATION_IDS: ContextVar[CorrelationIds] = ContextVar("correlation_ids", default=NO_IDS)


def read_correlation_ids(headers: MultiMapping[str]) -> CorrelationIds:
    """The correlation ids in the headers of a request; a header that came twice counts as invalid."""
    if TRACEPARENT_HEADER not in headers and REQUEST_ID_HEADER not in headers:
        return NO_IDS
    return CorrelationIds(_traceparent(_only(headers, TRACEPARENT_HEADER)), _safe_id(_only(headers, REQUEST_ID_HEADER)))


def _only(headers: MultiMapping[str], name: str) -> str:
    values = headers.getall(name, [])
    return values[0].strip(" \t") if len(values) == 1 else ""


def _safe_id(text: str) -> str:
    return text if _SAFE_ID.fullmatch(text) else ""


def _traceparent(text: str) -> str:
    """The traceparent as this version writes it; empty if it is not valid."""
    match = _TRACEPARENT.fullmatch(text)
    if match is None or (match[1] == _VERSION and match[5]):
        return ""
    return "-".join((_VERSION, match[2], match[3], match[4]))
