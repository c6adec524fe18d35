"""Logging as text or JSON, and an access log without query strings, which hold signatures."""

import asyncio
import json
import logging
import select
import sys
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal, NamedTuple, TextIO

from aiohttp import web

from service.callers import KEY_NAME, NAMELESS
from service.quoting import log_safe
from service.tracing import CORRELATION_IDS

REQUEST: ContextVar[str] = ContextVar("request_id", default="-")

access = logging.getLogger("service.access")

FLUSH_SECONDS = 0.1
# A pipe takes this much atomically, so lines of other processes cannot end up inside ours.
BATCH_BYTES = select.PIPE_BUF

# Libraries whose info lines hold URLs or repeat ours.
_QUIET = ("aiohttp", "apscheduler", "google_genai", "asyncio", "PIL")


def set_up_logging(level: str, log_format: Literal["text", "json"], key: str = "") -> None:
    """Send all records to stderr; `key` is the Gemini key, redacted wherever it occurs."""
    handler = BatchHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(key) if log_format == "json" else TextFormatter(key))
    # Do not collect what our formats never show.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


class BatchHandler(logging.StreamHandler[TextIO]):
    """Buffers lines for up to FLUSH_SECONDS, since a write per line costs more than the rest of logging.

    A warning flushes at once, and so does every line while no event loop runs; `logging.shutdown` flushes the rest.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._batch: list[str] = []
        self._length = 0

    def emit(self, record: logging.LogRecord) -> None:
        record.request_id = REQUEST.get()
        record.trace_id = CORRELATION_IDS.get().trace_id
        try:
            line = self.format(record) + "\n"
        except Exception:
            self.handleError(record)
            return
        # Encoded as stderr does it.
        length = len(line) if line.isascii() else len(line.encode(errors="backslashreplace"))
        if self._length + length > BATCH_BYTES:
            self.flush()
        self._batch.append(line)
        self._length += length
        if record.levelno >= logging.WARNING:
            self.flush()
        elif len(self._batch) == 1:
            self._flush_soon()

    def _flush_soon(self) -> None:
        try:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_batch, self._batch)
        except RuntimeError:
            self.flush()

    def _flush_batch(self, batch: list[str]) -> None:
        if batch is self._batch:
            self.flush()

    def flush(self) -> None:
        """Write the buffered lines; on an error they are dropped, so that no request fails because of its log."""
        self.acquire()
        try:
            batch, self._batch, self._length = self._batch, [], 0
            self.stream.write("".join(batch))
            self.stream.flush()
        except (OSError, ValueError):
            pass
        finally:
            self.release()


class AccessDetails(NamedTuple):
    """A request and its response: what the access log says in JSON beyond its text.

    `size` is of the response's body in bytes, `client` the address of the other side, `key` the name of its API key,
    `code` that of an error.
    """

    size: int = 0
    client: str | None = None
    key: str = NAMELESS
    code: str | None = None


_NO_DETAILS = AccessDetails()


class AccessRecord(logging.LogRecord):
    """The log record of a response. The attributes that all share are computed once, which is most of the cost."""

    def __init__(self, method: str, path: str, status: int, ms: float, details: AccessDetails = _NO_DETAILS) -> None:
        now = time.time()
        own = {"created": now, "msecs": int(now % 1 * 1000), "args": (method, path, status, ms), "details": details}
        self.__dict__ = _SHARED | own

    @property
    def fields(self) -> dict[str, object]:
        details: AccessDetails = self.__dict__["details"]
        shown = dict(zip(("method", "path", "status", "ms"), self.args or (), strict=True))
        return shown | {"bytes": details.size, "client": details.client, "key": details.key, "code": details.code}


_SHARED = vars(logging.LogRecord(access.name, logging.INFO, "", 0, "%s %r %s %s ms", None, None))


class SafeFormatter(logging.Formatter):
    """Redacts `key` and escapes terminal control characters, wherever the record comes from."""

    def __init__(self, key: str = "") -> None:
        super().__init__()
        self._key = key

    def safe(self, text: str, keep: str = "\n\t") -> str:
        return log_safe(text, self._key, keep)

    def message(self, record: logging.LogRecord, keep: str) -> str:
        """The record's message; an access record needs no escaping, since `%r` has escaped its path."""
        text = record.getMessage()
        return text if isinstance(record, AccessRecord) else self.safe(text, keep)


class TextFormatter(SafeFormatter):
    """One line per record, followed by the traceback of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        second, offset = _formatted_time(int(record.created))
        mark = getattr(record, "request_id", "-")
        line = f"{second}.{int(record.msecs):03}{offset} {record.levelname:7} {mark} {self.message(record, keep='')}"
        if trace := getattr(record, "trace_id", ""):
            line += f" trace={trace}"
        return f"{line}\n{self.safe(self.formatException(record.exc_info))}" if record.exc_info else line


@lru_cache(maxsize=1)
def _formatted_time(second: int) -> tuple[str, str]:
    """The local time and its offset from UTC (ISO 8601), cached: most records share the second of the one before."""
    text = datetime.fromtimestamp(second, UTC).astimezone().isoformat()
    return text[:19], text[19:]


class JsonFormatter(SafeFormatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "request_id": getattr(record, "request_id", "-"),
            "message": self.message(record, keep="\n\t"),
        }
        if trace := getattr(record, "trace_id", ""):
            line["trace_id"] = trace
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.safe(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def log_access(request: web.Request, status: int, seconds: float, size: int, code: str | None) -> None:
    """Log one line per response, with the path but not the query, which may hold a signature."""
    if not access.isEnabledFor(logging.INFO):
        return
    details = AccessDetails(size, request.remote, KEY_NAME.get(), code)
    access.handle(AccessRecord(request.method, request.path[:200], status, round(seconds * 1000, 1), details))
