"""Who may ask: API keys, host names, the origin of web pages, CORS preflights."""

import hmac
from typing import NamedTuple
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from service.errors import CrossOrigin, Unauthorized
from service.server.keys import ROUTES, SETTINGS
from service.server.routes import Access, Handler
from service.settings import is_loopback

_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Range",
    "Access-Control-Max-Age": "600",
}
_SAFE_METHODS = (hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS)
_PORTS = {"http": 80, "https": 443}


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Want a key where keys are set, else a host name and an origin of ours. Answers CORS preflights."""
    if request.method == hdrs.METH_OPTIONS and _is_preflight(request):
        return web.Response(status=204, headers=_PREFLIGHT)
    if request.app[SETTINGS].api_keys:
        if await _access(request) == "guarded":
            _check_key(request)
    elif request.method not in _SAFE_METHODS:
        _check_origin(request, _check_host(request))
    elif await _access(request) != "open":
        _check_host(request)
    return await handler(request)


def _is_preflight(request: web.Request) -> bool:
    asked = hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    return asked and request.headers.get(hdrs.ORIGIN, "").lower() in request.app[SETTINGS].cors_origins


async def _access(request: web.Request) -> Access:
    """Who may have this path, whatever the method; one that no route has is guarded."""
    match = request.match_info
    if isinstance(match.http_exception, web.HTTPMethodNotAllowed):
        method = min(match.http_exception.allowed_methods)
        match = await request.app.router.resolve(request.clone(method=method))
    route = request.app[ROUTES].get(match.route.name or "")
    return route.access if route else "guarded"


def _check_key(request: web.Request) -> None:
    scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    keys = [key.get_secret_value().encode() for key in request.app[SETTINGS].api_keys]
    presented = given.strip().encode("utf-8", "surrogateescape")
    # Every key is compared, so that the time tells nothing of which came near.
    matches = [hmac.compare_digest(key, presented) for key in keys]
    if scheme.lower() != "bearer" or not any(matches):
        raise Unauthorized("send a valid key as Authorization: Bearer …", headers={"WWW-Authenticate": "Bearer"})


class _Origin(NamedTuple):
    scheme: str
    name: str
    port: int | None


_NOWHERE = _Origin("", "", None)


def _origin(address: str) -> _Origin:
    """Scheme, host name and port of an address, as browsers compare them; _NOWHERE if it has none."""
    try:
        parts = urlsplit(address)
        # The idna codec also refuses what is no host name; a dot at the end leads to the same host.
        name = (parts.hostname or "").removesuffix(".").encode("idna").decode()
        return _Origin(parts.scheme, name, parts.port or _PORTS.get(parts.scheme)) if name else _NOWHERE
    except ValueError:
        return _NOWHERE


def _check_host(request: web.Request) -> str:
    """A web page must not reach the service by a name that it pointed at this machine. Returns the host asked for."""
    host = _host(request)
    name = _origin(f"http://{host}").name
    if not (is_loopback(name) or (name and name == _public(request).name)):
        raise CrossOrigin("this host name is not the service's; set PUBLIC_URL to the address that clients use")
    return host


def _check_origin(request: web.Request, host: str) -> None:
    """A web page of elsewhere must not spend through an open port. Our own origin is http, unless PUBLIC_URL says."""
    public = _public(request)
    scheme = "http" if is_loopback(_origin(f"http://{host}").name) else public.scheme
    ours = {public, _origin(f"{scheme}://{host}")} - {_NOWHERE}
    for origin in filter(None, request.headers.getall(hdrs.ORIGIN, ())):
        if origin.lower() not in request.app[SETTINGS].cors_origins and _origin(origin) not in ours:
            raise CrossOrigin("this origin may not ask; CORS_ORIGINS lists those that may")


def _host(request: web.Request) -> str:
    """The host asked for: of the request's target if that is a whole address (RFC 9112, 3.2.2), else its Host."""
    target = request.raw_path
    if "://" in target and not target.startswith("/"):
        return urlsplit(target).netloc
    return request.headers.get(hdrs.HOST, "")


def _public(request: web.Request) -> _Origin:
    return _origin(request.app[SETTINGS].public_url or "")
