"""API keys, the Host and Origin checks that protect an open port, and CORS preflights."""

import re
from contextvars import ContextVar
from typing import NamedTuple
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from service.callers import KEY_NAME, NAMELESS, Caller, Rate
from service.errors import CrossOrigin, RateLimited, Unauthorized
from service.ledger.buckets import Level
from service.server.keys import BUCKETS, CALLER, KEYRING, METRICS, ROUTE, ROUTES, SETTINGS
from service.server.routes import UNKNOWN, Access, Handler
from service.values import is_loopback

# Without API keys, every client is this caller, who sees all requests.
_ANONYMOUS = Caller(NAMELESS, sees_all=True)
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Range, Idempotency-Key, Prefer, Last-Event-ID,"
    " X-Request-Id, traceparent",
    "Access-Control-Max-Age": "600",
}
# What is left of the caller's rate, in the context of its request. A key of the request that most requests lack would
# cost each download 1 % of its instructions.
LEVEL: ContextVar[Level | None] = ContextVar("level", default=None)
# Where browsers open pages and what belongs to them, whether it exists or not.
_PAGES = re.compile(r"/(?:favicon\.ico|openapi\.json|docs|(?:docs|studio)/.*)", re.DOTALL)
_CLIENT_HEADER = re.compile(r"x-stainless-[a-z-]{1,40}|openai-[a-z-]{1,40}")
_SAFE_METHODS = (hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS)
_PORTS = {"http": 80, "https": 443}
# host[:port] (RFC 3986, 3.2) and nothing else: urlsplit also finds a host behind user information and before a path.
_AUTHORITY = re.compile(r"(?:[\w-]+(?:\.[\w-]+)*\.?|\[[0-9a-f:.]+\])(?::[0-9]{0,5})?", re.ASCII | re.IGNORECASE)


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Require an API key where keys are set, else a known Host and Origin; answer CORS preflights."""
    if request.method == hdrs.METH_OPTIONS and _is_preflight(request):
        return web.Response(status=204, headers=_preflight(request))
    request[CALLER] = _ANONYMOUS
    if request[ROUTE].access == "open":
        return await handler(request)
    if request.app[KEYRING].needs_key:
        if await _access(request) == "guarded":
            caller = request[CALLER] = _check_key(request)
            if rate := caller.limits.rate:
                await _check_rate(request, caller, rate)
    elif request.method not in _SAFE_METHODS:
        _check_origin(request, _check_host(request))
    elif await _access(request) != "open":
        _check_host(request)
    return await handler(request)


def _preflight(request: web.Request) -> dict[str, str]:
    """The answer to a preflight; also allows the headers by which OpenAI's clients describe themselves."""
    asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")
    own = ", ".join(name for each in asked.split(",") if _CLIENT_HEADER.fullmatch(name := each.strip().lower()))
    allowed = _PREFLIGHT[hdrs.ACCESS_CONTROL_ALLOW_HEADERS]
    return _PREFLIGHT | ({hdrs.ACCESS_CONTROL_ALLOW_HEADERS: f"{allowed}, {own}"} if own else {})


def _is_preflight(request: web.Request) -> bool:
    asked = hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    return asked and request.headers.get(hdrs.ORIGIN, "").lower() in request.app[SETTINGS].cors_origins


async def _access(request: web.Request) -> Access:
    """The access rule of the requested path, whatever the method; unknown paths are guarded, but those of pages."""
    refusal = request.match_info.http_exception
    if isinstance(refusal, web.HTTPNotFound) and _PAGES.fullmatch(request.rel_url.raw_path):
        return "page"
    if not isinstance(refusal, web.HTTPMethodNotAllowed):
        return request[ROUTE].access
    match = await request.app.router.resolve(request.clone(method=min(refusal.allowed_methods)))
    return request.app[ROUTES].get(match.route.resource, UNKNOWN).access


def _check_key(request: web.Request) -> Caller:
    """The caller of the API key; raises Unauthorized."""
    scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    caller = request.app[KEYRING].caller(given.strip().encode("utf-8", "surrogateescape"))
    if scheme.lower() != "bearer" or caller is None:
        raise Unauthorized("send a valid key as Authorization: Bearer …", headers={"WWW-Authenticate": "Bearer"})
    KEY_NAME.set(caller.name)
    return caller


async def _check_rate(request: web.Request, caller: Caller, rate: Rate) -> None:
    """Count the request; raises RateLimited."""
    level = await request.app[BUCKETS].take(caller.principal, rate)
    LEVEL.set(level)
    if not level.granted:
        request.app[METRICS].rate_limited(caller.name)
        raise RateLimited(
            f"over the rate of this API key, {rate.count} requests in {rate.seconds} seconds",
            headers={"Retry-After": str(level.seconds_to_next)},
        )


def rate_headers(level: Level) -> dict[str, str]:
    """The headers of draft-ietf-httpapi-ratelimit-headers-10; `t` is when one more comes."""
    return {
        "RateLimit-Policy": f'"key";q={level.rate.count};w={level.rate.seconds}',
        "RateLimit": f'"key";r={level.remaining};t={level.seconds_to_next}',
    }


class _Origin(NamedTuple):
    scheme: str
    name: str
    port: int | None


_NO_ORIGIN = _Origin("", "", None)


def _origin(url: str) -> _Origin:
    """Scheme, host name and port of a URL, as browsers compare them; _NO_ORIGIN if it has none."""
    try:
        parts = urlsplit(url)
        # The idna codec also refuses invalid host names; a trailing dot leads to the same host.
        name = (parts.hostname or "").removesuffix(".").encode("idna").decode()
        return _Origin(parts.scheme, name, parts.port or _PORTS.get(parts.scheme)) if name else _NO_ORIGIN
    except ValueError:
        return _NO_ORIGIN


def _client_origin(text: str) -> _Origin:
    """The origin that a client sent as scheme://host[:port]; _NO_ORIGIN for anything else."""
    return _origin(text) if _AUTHORITY.fullmatch(text.partition("://")[2]) else _NO_ORIGIN


def _check_host(request: web.Request) -> str:
    """Refuse unknown hosts, so that a web page cannot reach the service by DNS rebinding; returns host[:port]."""
    host = requested_host(request)
    name = _client_origin(f"http://{host}").name
    if not (is_loopback(name) or (name and name == _public(request).name)):
        raise CrossOrigin("this host name is not the service's; set PUBLIC_URL to the address that clients use")
    return host


def _check_origin(request: web.Request, host: str) -> None:
    """Refuse other origins, so that no web page can spend money here (CSRF).

    The service's own origin has the scheme http, unless PUBLIC_URL says otherwise.
    """
    public = _public(request)
    scheme = "http" if is_loopback(_client_origin(f"http://{host}").name) else public.scheme
    own = {public, _client_origin(f"{scheme}://{host}")} - {_NO_ORIGIN}
    for origin in filter(None, request.headers.getall(hdrs.ORIGIN, ())):
        if origin.lower() not in request.app[SETTINGS].cors_origins and _client_origin(origin) not in own:
            raise CrossOrigin("this origin is not allowed; CORS_ORIGINS lists those that are")


def requested_host(request: web.Request) -> str:
    """The requested host[:port]: of an absolute-form target (RFC 9112, 3.2.2), else of the Host header."""
    target = request.raw_path
    if "://" in target and not target.startswith("/"):
        return urlsplit(target).netloc
    return request.headers.get(hdrs.HOST, "")


def _public(request: web.Request) -> _Origin:
    return _origin(request.app[SETTINGS].public_url or "")
