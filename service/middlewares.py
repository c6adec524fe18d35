"""What every request passes: its id and record, errors in one form, keys and origins, the door."""

import hmac
import logging
import time
from collections.abc import Awaitable, Callable
from urllib.parse import SplitResult, urlsplit

from aiohttp import hdrs, web

from service.door import Kind
from service.errors import CrossOrigin, ExpectationFailed, MethodNotAllowed, NotFound, ServiceError, Unauthorized
from service.handlers.answers import common_headers, problem
from service.keys import DOOR, METRICS, REQUEST_ID, SETTINGS, TICKET
from service.logs import REQUEST, log_access
from service.settings import is_loopback
from service.store.layout import request_id

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Route name -> what it counts as at the door.
ADMITTED: dict[str, Kind] = {
    "thumbnails": "thumbnails",
    "exports": "exports",
    "static": "download",
    "signed": "download",
}
CLIENT_GONE = 499


@web.middleware
async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request its id, and note its end in the access log and the metrics."""
    request[REQUEST_ID] = request_id()
    REQUEST.set(request[REQUEST_ID])
    start, status = time.perf_counter(), CLIENT_GONE
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        seconds = time.perf_counter() - start
        route = request.match_info.route.name or "other"
        method = request.method if request.method in hdrs.METH_ALL else "other"
        request.app[METRICS].answered(route, method, status, seconds)
        log_access(request, status, seconds)


@web.middleware
async def errors_as_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error of every route becomes problem+json, unless an answer is already under way."""
    try:
        return await handler(request)
    except ServiceError as error:
        return problem(error, request[REQUEST_ID])
    except web.HTTPException as error:
        return problem(_from_http(error, request), request[REQUEST_ID])
    except ConnectionError:
        raise
    except Exception:
        log.exception("unexpected fault")
        fault = ServiceError("an unexpected fault; the log has it under this request's id", billed=None)
        return problem(fault, request[REQUEST_ID])


def _from_http(error: web.HTTPException, request: web.Request) -> ServiceError:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return MethodNotAllowed(f"{request.method} is not allowed here; allowed: {allowed}", headers={"Allow": allowed})
    if error.status == NotFound.status:
        return NotFound("there is no such route")
    if error.status == ExpectationFailed.status:
        return ExpectationFailed("the only expectation understood is 100-continue")
    fault = ServiceError(error.reason)
    fault.status = error.status
    return fault


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


@web.middleware
async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Through the door, before anything is read or spent. A ticket lent to work is given back by the work."""
    kind = ADMITTED.get(request.match_info.route.name or "")
    if kind is None:
        return await handler(request)
    door = request.app[DOOR]
    ticket = request[TICKET] = door.admit(kind) if kind == "download" else await door.enter(kind)
    try:
        return await handler(request)
    finally:
        if not ticket.lent:
            ticket.leave()


async def sign_answer(request: web.Request, response: web.StreamResponse) -> None:
    """Give the answer the headers that all carry; a `Piece` has them already."""
    if isinstance(response, web.HTTPException):
        _rewrite(response, request)
    response.headers.update(common_headers(request))


def _rewrite(error: web.HTTPException, request: web.Request) -> None:
    """Give aiohttp's own refusal, made before any middleware, the form of all errors."""
    request.setdefault(REQUEST_ID, request_id())
    answer = problem(_from_http(error, request), request[REQUEST_ID])
    error.body = answer.body
    error.headers.update({hdrs.CONTENT_TYPE: answer.content_type, hdrs.CONTENT_LENGTH: str(answer.content_length)})


async def expect_continue(request: web.Request) -> None:
    """`100 Continue` waits until the request is admitted; the form says it when it starts to read."""
    if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
        raise web.HTTPExpectationFailed


MIDDLEWARES = (record, errors_as_problems, guard, admit)
