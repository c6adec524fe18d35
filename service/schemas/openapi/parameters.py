"""The parameters of the operations and the headers of their answers."""

from service.schemas.openapi.operation import Endpoint, Header, Parameter, Schema

REQUEST_ID = "req_43eb4cf194c6c39ddf41129ea895fbf5"
_TEXT = {"type": "string"}
_DAY = {"type": "string", "format": "date"}


def path(name: str, about: str, example: str) -> Parameter:
    return Parameter(name, "path", about, _TEXT, example)


def query(name: str, about: str, schema: Schema, example: object = None) -> Parameter:
    return Parameter(name, "query", about, schema, example)


def header(name: str, about: str, schema: Schema, example: object = None) -> Parameter:
    return Parameter(name, "header", about, schema, example)


REQUEST = path("request_id", "The id of a request for thumbnails", REQUEST_ID)
VARIATION = path("variation_id", "`var-1`, `var-2` …", "var-1")
EXPORT_NAME = path("name", "The name of an export", "export_e503dda799299252427bffe7112a21e5.png")
MODEL = path("id", "The name of a model", "gemini-nano-banana-2.1")
STUDIO_FILE = path("name", "The name of a file of the page", "studio.css")

IDEMPOTENCY_KEY = header(
    "Idempotency-Key",
    "Names the request, so that it is executed only once: see idempotent requests",
    {"type": "string", "pattern": "^[!-~]{1,255}$"},
    "8e03978e-40d5-43dd-bc93-6894a57f9324",
)
PREFER = header("Prefer", "`respond-async`: answer 202 at once, and complete the request in the background", _TEXT)
RETRY_COUNT = header(
    "X-Stainless-Retry-Count",
    "Set by OpenAI's clients: 1 or more joins the request that this one repeats, instead of paying twice",
    _TEXT,
    "0",
)
LAST_EVENT_ID = header("Last-Event-ID", "Continue after this event", {"type": "integer", "minimum": 0}, 1)
LAST_EVENT = query("last_event_id", "As `Last-Event-ID`", {"type": "integer", "minimum": 0}, 1)

LIMIT = query("limit", "How many requests", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, 20)
BEFORE = query("before", "The id of a request: the list continues after it", _TEXT, REQUEST_ID)
BY_KEY = query("idempotency_key", "Only the newest request with this key", _TEXT)
FIRST = query("from", "The first UTC day; by default 29 days before `to`", _DAY, "2026-11-01")
LAST = query("to", "The last UTC day, at most 400 days in all; by default today", _DAY, "2026-11-27")
EXPIRES = query("expires", "When the link expires, in seconds since 1970", {"type": "integer"}, 1795600000)
SIGNATURE = query("signature", "HMAC-SHA256 of the link", {"type": "string"}, "5f" * 32)

IF_NONE_MATCH = header("If-None-Match", "304 if the file has one of these ETags", _TEXT)
# The request headers of every operation.
COMMON = (
    header(
        "X-Request-Id",
        "The id of the exchange in the log and in the answer's header; one that is not 1 to 64 of the characters"
        " `A-Za-z0-9._-` is replaced",
        _TEXT,
    ),
    header("traceparent", "The trace that the exchange belongs to (W3C Trace Context)", _TEXT),
)
CONDITIONS = (
    IF_NONE_MATCH,
    header("Range", "One range of bytes; several are answered with the whole file", _TEXT, "bytes=0-1023"),
    header("If-Range", "A strong ETag: without it the range does not count", _TEXT),
    header("If-Match", "412 unless the file has one of these ETags", _TEXT),
    header("If-Unmodified-Since", "412 if the file is newer", _TEXT),
)

HEADERS = {
    each.name: each
    for each in (
        Header("X-Request-Id", "The id of the exchange, which the log has too", _TEXT),
        Header("RateLimit", "What is left of the key's rate, if it has one", _TEXT),
        Header("RateLimit-Policy", "The key's rate, if it has one", _TEXT),
        Header("Retry-After", "Seconds until a retry is worthwhile", {"type": "integer", "minimum": 0}),
        Header("X-Should-Retry", "Whether OpenAI's clients send the request again", {"enum": ["true", "false"]}),
        Header("WWW-Authenticate", "`Bearer`", _TEXT),
        Header("Location", "The address of the request's status", _TEXT),
        Header("Preference-Applied", "`respond-async`", {"const": "respond-async"}),
        Header("Idempotency-Replayed", "`true`: an earlier request has been answered again", {"const": "true"}),
        Header("ETag", "A strong validator of the file", _TEXT),
        Header("Accept-Ranges", "`bytes`", {"const": "bytes"}),
        Header("Content-Range", "Which bytes of how many these are, or how many there are", _TEXT),
        Header("Content-Disposition", "The name of the file", _TEXT),
        Header("Cache-Control", "How long the answer may be kept", _TEXT),
    )
}


def common_headers(endpoint: Endpoint) -> tuple[str, ...]:
    """The names of the headers that every answer of a route may have."""
    return ("X-Request-Id", *(("RateLimit", "RateLimit-Policy") if endpoint.access == "guarded" else ()))
