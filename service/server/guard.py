"""Who may ask: API keys, the origin of web pages, CORS preflights."""

import hmac
from collections.abc import Awaitable, Callable
from urllib.parse import SplitResult, urlsplit

from aiohttp import hdrs, web

from service.errors import CrossOrigin, Unauthorized
from service.server.keys import SETTINGS
from service.settings import is_loopback

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Who may ask: a key where keys are set, else no web page of another origin. Answers CORS preflights."""
    settings = request.app[SETTINGS]
    if request.method == hdrs.METH_OPTIONS and _is_preflight(request):
        return web.Response(status=204, headers=_PREFLIGHT)
    if settings.api_keys:
        if _is_guarded(request):
            _check_key(request)
    elif request.method == hdrs.METH_POST:
        _check_origin(request)
    return await handler(request)


_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Range",
    "Access-Control-Max-Age": "600",
}


def _is_preflight(request: web.Request) -> bool:
    asked = hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    return asked and request.headers.get(hdrs.ORIGIN, "").lower() in request.app[SETTINGS].cors_origins


def _is_guarded(request: web.Request) -> bool:
    path = request.path
    return path == "/metrics" or (path.startswith("/api/") and not path.startswith("/api/download/"))


def _check_key(request: web.Request) -> None:
    scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    keys = [key.get_secret_value().encode() for key in request.app[SETTINGS].api_keys]
    presented = given.strip().encode("utf-8", "surrogateescape")
    # Every key is compared, so that the time tells nothing of which came near.
    matches = [hmac.compare_digest(key, presented) for key in keys]
    if scheme.lower() != "bearer" or not any(matches):
        raise Unauthorized("send a valid key as Authorization: Bearer …", headers={"WWW-Authenticate": "Bearer"})


def _check_origin(request: web.Request) -> None:
    """A page must not spend through an open port, nor by a name that it pointed at this machine."""
    settings, host = request.app[SETTINGS], request.headers.get(hdrs.HOST, "").lower()
    ours = {host, _address(settings.public_url or "").netloc} - {""}
    name = _address(f"//{host}").hostname or ""
    if not (is_loopback(name) or name == _address(settings.public_url or "//").hostname):
        raise CrossOrigin("this host name is not the service's; set PUBLIC_URL to the address that clients use")
    origin = request.headers.get(hdrs.ORIGIN, "").lower()
    if origin and origin not in settings.cors_origins and _address(origin).netloc not in ours:
        raise CrossOrigin("this origin may not ask; CORS_ORIGINS lists those that may")


def _address(text: str) -> SplitResult:
    """The parts of an address; an empty one if it cannot be read."""
    try:
        return urlsplit(text.lower())
    except ValueError:
        return urlsplit("")
