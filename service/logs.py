"""Logging: text for people or JSON for machines, and an access log that never sees a signature or a script."""

import json
import logging
import sys
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

from aiohttp import web

REQUEST: ContextVar[str] = ContextVar("request_id", default="-")

access = logging.getLogger("service.access")

# Libraries whose info lines carry urls or repeat ours.
_QUIET = ("aiohttp", "apscheduler", "google_genai", "asyncio", "PIL")


def set_up_logging(level: str, log_format: Literal["text", "json"]) -> None:
    """Send all records to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_name_request)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    # What no format of ours shows need not be found out for every record.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _name_request(record: logging.LogRecord) -> bool:
    record.request_id = REQUEST.get()
    return True


class TextFormatter(logging.Formatter):
    """One line for people; the second is spelled out once, however many records fall into it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(request_id)s %(message)s")
        self._second = (0, "")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  # logging's name
        second = int(record.created)
        if self._second[0] != second:
            self._second = second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return f"{self._second[1]},{record.msecs:03.0f}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "request_id": getattr(record, "request_id", "-"),
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_access(request: web.Request, status: int, seconds: float) -> None:
    """One line an answer: the path without its query, which holds signatures."""
    if not access.isEnabledFor(logging.INFO):
        return
    fields = {"method": request.method, "path": request.path[:200], "status": status, "ms": round(seconds * 1000, 1)}
    message = "%(method)s %(path)r %(status)s %(ms)s ms"
    access.info(message, fields, extra={"fields": fields})
