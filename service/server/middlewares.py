"""The middlewares, outermost first: request id and access log, errors as responses, guard, admission."""

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from service.errors import ExpectationFailed, MalformedRequest, MethodNotAllowed, NotFound, ServiceError
from service.logs import REQUEST, log_access
from service.metrics import OTHER
from service.server.guard import LEVEL, guard, rate_headers
from service.server.keys import ADMISSION, METRICS, NEW_ID, REQUEST_ID, ROUTE, ROUTES
from service.server.problems import CODE, refusal
from service.server.routes import UNKNOWN, Handler, Route
from service.server.sending import common_headers
from service.spans import current_traceparent, exporting, span
from service.store.layout import request_id
from service.tracing import CORRELATION_IDS, NO_IDS, read_correlation_ids

if TYPE_CHECKING:
    from opentelemetry.trace import Span

log = logging.getLogger(__name__)

# What nginx logs when the client disconnected before the response.
CLIENT_CLOSED_REQUEST = 499
_FIRST_ERROR = 400
_NO_SPAN = contextlib.nullcontext()


@web.middleware
async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Assign the request id and look up the route; write the access log and the request metrics."""
    _identify(request)
    request[ROUTE] = route = _route(request)
    start, response = time.perf_counter(), None
    try:
        with _spanned(request, route) as current:
            response = await handler(request)
            if current:
                current.set_attribute("http.response.status_code", response.status)
        return response
    finally:
        _record_answer(request, route, response, time.perf_counter() - start)


def _identify(request: web.Request) -> None:
    """Take over a safe X-Request-Id as the id of this exchange; orders and files get an id of our own."""
    request[NEW_ID] = own_id = request_id()
    ids = read_correlation_ids(request.headers)
    if ids is not NO_IDS:
        CORRELATION_IDS.set(ids)
    request[REQUEST_ID] = ids.request_id or own_id
    REQUEST.set(request[REQUEST_ID])


def _spanned(request: web.Request, route: Route) -> contextlib.AbstractContextManager["Span | None"]:
    return _request_span(request, route) if exporting() else _NO_SPAN


@contextlib.contextmanager
def _request_span(request: web.Request, route: Route) -> Iterator["Span | None"]:
    """A span of this request, below the one that its traceparent names; the log shows its trace."""
    ids, method = CORRELATION_IDS.get(), request.method
    attributes = {"http.request.method": method, "http.route": route.label}
    with span(f"{method} {route.label}", "SERVER", parent=ids.traceparent, **attributes) as current:
        if not ids.traceparent:
            CORRELATION_IDS.set(replace(ids, traceparent=current_traceparent()))
        yield current


def _route(request: web.Request) -> Route:
    return request.app[ROUTES].get(request.match_info.route.resource, UNKNOWN)


def _record_answer(request: web.Request, route: Route, response: web.StreamResponse | None, seconds: float) -> None:
    """Count and log a response; None: the client disconnected before it."""
    method = request.method if request.method in hdrs.METH_ALL else OTHER
    status = CLIENT_CLOSED_REQUEST if response is None else response.status
    request.app[METRICS].answered(route.label, method, status, seconds)
    code = response.get(CODE) if response is not None and status >= _FIRST_ERROR else None
    log_access(request, status, seconds, _body_size(request, response), code)


def _body_size(request: web.Request, response: web.StreamResponse | None) -> int:
    """Bytes of the body, as far as they are known before it is sent; of a stream, those that were sent."""
    if response is None or request.method == hdrs.METH_HEAD:
        return 0
    length = response.content_length
    return response.body_length if length is None else length


@web.middleware
async def errors_as_responses(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every exception into a response in the form of its API."""
    try:
        if request.version < HttpVersion11:
            _check_old_version(request)
        return await handler(request)
    except MalformedRequest as error:
        answer = _answer(error, request)
        answer.force_close()
        return answer
    except ServiceError as error:
        return _refusal(error, request)
    except web.HTTPException as error:
        return _refusal(_from_http(error, request), request)
    except ConnectionError:
        raise
    except Exception:
        log.exception("unexpected fault")
        fault = ServiceError("an unexpected fault; the log has it under this request's id", billed=None)
        return _refusal(fault, request)


def _answer(error: ServiceError, request: web.Request) -> web.Response:
    request.app[METRICS].failed(error.code)
    if request.writer.output_size and request.transport:
        # A second response would look like a part of the first: let the client see that it is cut.
        request.transport.abort()
        raise ConnectionResetError("the response had begun")
    return refusal(error, request)


def _refusal(error: ServiceError, request: web.Request) -> web.Response:
    """The error as a response; the connection is closed after it unless the request body was received completely.

    aiohttp discards the rest of the body for ten seconds before it closes (lingering close): an earlier close would
    reset the connection, and the client might never read the response.
    """
    answer = _answer(error, request)
    if not request.content.is_eof():
        answer.force_close()
    return answer


def _check_old_version(request: web.Request) -> None:
    """Refuse HTTP/1.0 with Transfer-Encoding, which allows request smuggling through a proxy (RFC 9112, 6.1)."""
    if request.version < HttpVersion10:
        raise MalformedRequest("this is not an HTTP/1.1 request")
    if hdrs.TRANSFER_ENCODING in request.headers:
        raise MalformedRequest("HTTP/1.0 has no Transfer-Encoding")


def _from_http(error: web.HTTPException, request: web.Request) -> ServiceError:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return MethodNotAllowed(f"{request.method} is not allowed here; allowed: {allowed}", headers={"Allow": allowed})
    if error.status == NotFound.status:
        return NotFound("there is no such route")
    if error.status == ExpectationFailed.status:
        return ExpectationFailed("the only expectation understood is 100-continue")
    return ServiceError(error.reason, status=error.status)


@web.middleware
async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Admission control before the body is read; forms take their place later, once the body is complete."""
    kind = request[ROUTE].admission
    if kind == "download":
        with request.app[ADMISSION].admit(kind):
            return await handler(request)
    if kind:
        await request.app[ADMISSION].check(kind)
    return await handler(request)


async def add_common_headers(request: web.Request, response: web.StreamResponse) -> None:
    """An `on_response_prepare` signal: add the common headers, which a `PreparedResponse` has already."""
    if isinstance(response, web.HTTPException):
        _rewrite(response, request)
    response.headers.update(common_headers(request))
    if level := LEVEL.get():
        response.headers.update(rate_headers(level))


def _rewrite(error: web.HTTPException, request: web.Request) -> None:
    """Turn a refusal that aiohttp raised before the middlewares into one of ours, and log and count it."""
    if REQUEST_ID not in request:
        _identify(request)
    answer = _answer(_from_http(error, request), request)
    _record_answer(request, _route(request), answer, 0)
    error.body = answer.body
    error.headers.update(answer.headers)
    error.headers[hdrs.CONTENT_LENGTH] = str(answer.content_length)


MIDDLEWARES = (record, errors_as_responses, guard, admit)
