"""GET and HEAD of exports: sent from the cache, with sendfile, or by nginx (X-Accel-Redirect)."""

import asyncio
import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from aiohttp import hdrs, web

from service.errors import NotFound, RangeNotSatisfiable
from service.handlers.conditions import check_preconditions, is_unchanged
from service.imaging.formats import TABLE
from service.server.keys import EXPORTS, HOT, METRICS, SETTINGS
from service.server.sending import PreparedResponse, header_lines
from service.server.throughput import MinimumThroughput, supervised_sending
from service.store.layout import EXPORT_NAME
from service.store.local import StoredFile

STATIC_CACHE = "public, max-age=31536000, immutable"
# Bytes per sendfile call. A file of at most one segment is read whole and cached.
SEGMENT_BYTES = 256 * 1024

_MIME = {row.suffix: row.mime for row in TABLE.values()}
_RANGE = re.compile(r"bytes=([0-9]{0,100})-([0-9]{0,100})", re.ASCII | re.IGNORECASE)


async def download_static(request: web.Request) -> web.StreamResponse:
    """An export by name, while SIGN_URLS is off."""
    if request.app[EXPORTS].links.signed:
        raise NotFound("links are signed here: use the link from the answer")
    return await _download(request, STATIC_CACHE)


async def download_signed(request: web.Request) -> web.StreamResponse:
    """An export by signed link; signature and expiry are checked first, so that a guess does not show what exists."""
    links = request.app[EXPORTS].links
    if not links.signed:
        raise NotFound("links are not signed here: use the link from the answer")
    left = links.verify(request.match_info["name"], request.rel_url.raw_query_string)
    return await _download(request, f"private, max-age={left}")


@dataclass(frozen=True, slots=True)
class _Span:
    """A range of bytes; `stop` is exclusive."""

    start: int
    stop: int


async def _download(request: web.Request, cache_control: str) -> web.StreamResponse:
    name = request.match_info["name"]
    if not EXPORT_NAME.fullmatch(name):
        raise NotFound("there is no such export")
    app = request.app
    key, hot, prefix = f"output/{name}", app[HOT], app[SETTINGS].accel_redirect_prefix
    file = hot.get(key)
    if file is None:
        file = await app[EXPORTS].store.open(key, whole=0 if prefix else SEGMENT_BYTES)
        if prefix or file.data is not None:
            hot.keep(key, file)
    if prefix:
        check_preconditions(request, _nginx_etag(file), file.modified)
        return await _send_prepared(request, b"", 200, _accel_redirect(name, cache_control, prefix))
    try:
        return await _send(request, file, name, cache_control)
    finally:
        if file.data is None:
            file.close()


async def send_attachment(request: web.Request, file: StoredFile, name: str, mime: str) -> web.StreamResponse:
    """A file as an attachment called `name`: conditional and range requests as for exports, but never cached."""
    headers = {"Content-Type": mime, "Content-Disposition": f'attachment; filename="{name}"'}
    cache_control = "private, no-store"
    check_preconditions(request, file.etag, file.modified)
    if is_unchanged(request, file.etag):
        return web.Response(status=304, headers=_validator_headers(file.etag, cache_control))
    part = _span(request, file)
    return await _send_file(request, file, part, _sized_headers(file.etag, file.size, part, cache_control) | headers)


async def _send(request: web.Request, file: StoredFile, name: str, cache_control: str) -> web.StreamResponse:
    check_preconditions(request, file.etag, file.modified)
    if is_unchanged(request, file.etag):
        return web.Response(status=304, headers=_validator_headers(file.etag, cache_control))
    part = _span(request, file)
    if file.data is not None:
        lines = _header_lines(name, cache_control, file.etag, file.size, part)
        data = file.data[part.start : part.stop] if part else file.data
        return await _send_prepared(request, data, 206 if part else 200, lines)
    return await _send_file(request, file, part, _response_headers(name, cache_control, file.etag, file.size, part))


async def _send_file(
    request: web.Request, file: StoredFile, part: _Span | None, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Send a file, or a part of it, with sendfile."""
    response = web.StreamResponse(status=206 if part else 200, headers=headers)
    await response.prepare(request)
    if request.method != hdrs.METH_HEAD:
        await _stream(request, file, part or _Span(0, file.size))
    await response.write_eof()
    return response


def _validator_headers(etag: str, cache_control: str) -> dict[str, str]:
    """The headers that a 304 has, too."""
    return {"ETag": etag, "Cache-Control": cache_control, "Accept-Ranges": "bytes"}


def _content_headers(name: str, cache_control: str) -> dict[str, str]:
    """The headers of an export's content, also where nginx sends it."""
    return {
        "Content-Type": _MIME[name[name.index(".") :]],
        "Content-Disposition": f'inline; filename="{name}"',
        "Cache-Control": cache_control,
    }


def _response_headers(name: str, cache_control: str, etag: str, size: int, part: _Span | None) -> dict[str, str]:
    """All headers of a 200, or with a part of a 206."""
    return _sized_headers(etag, size, part, cache_control) | _content_headers(name, cache_control)


def _sized_headers(etag: str, size: int, part: _Span | None, cache_control: str) -> dict[str, str]:
    headers = _validator_headers(etag, cache_control)
    headers["Content-Length"] = str(part.stop - part.start if part else size)
    if part:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    return headers


@lru_cache(maxsize=1024)
def _header_lines(name: str, cache_control: str, etag: str, size: int, part: _Span | None) -> str:
    """`_response_headers` as text, cached."""
    return header_lines(_response_headers(name, cache_control, etag, size, part))


def _nginx_etag(file: StoredFile) -> str:
    """The ETag as nginx builds it, which is what its clients send back."""
    return f'"{file.modified:x}-{file.size:x}"'


@lru_cache(maxsize=1024)
def _accel_redirect(name: str, cache_control: str, prefix: str) -> str:
    """Headers that make nginx send the file."""
    return header_lines(
        _content_headers(name, cache_control) | {"X-Accel-Redirect": f"{prefix}{name}", "Content-Length": "0"}
    )


async def _send_prepared(request: web.Request, data: bytes, status: int, lines: str) -> PreparedResponse:
    body = b"" if request.method == hdrs.METH_HEAD else data
    response = PreparedResponse(body, status, lines)
    response.send(request)
    if request.transport and request.transport.get_write_buffer_size():
        async with _supervised(request):
            await request.writer.drain()
    request.app[METRICS].sent(len(body))
    return response


async def _stream(request: web.Request, file: StoredFile, span: _Span) -> None:
    metrics, loop = request.app[METRICS], asyncio.get_running_loop()
    async with _supervised(request):
        for start in range(span.start, span.stop, SEGMENT_BYTES):
            if request.transport is None:
                raise ConnectionResetError("the client disconnected")
            count = min(SEGMENT_BYTES, span.stop - start)
            sent = await loop.sendfile(request.transport, file.body, start, count)
            metrics.sent(sent)
            if sent < count:
                request.transport.abort()
                raise ConnectionResetError("the file became shorter than promised")


def _supervised(request: web.Request) -> contextlib.AbstractAsyncContextManager[None]:
    settings = request.app[SETTINGS]
    rule = MinimumThroughput(settings.download_stall_seconds, settings.download_min_bytes_per_second)
    return supervised_sending(request, rule)


def _span(request: web.Request, file: StoredFile) -> _Span | None:
    """The requested range; None for the whole file: no, several or malformed ranges, or a stale If-Range."""
    if hdrs.RANGE not in request.headers:
        return None
    match = _RANGE.fullmatch(request.headers[hdrs.RANGE].strip())
    if not match or request.method != "GET" or request.headers.get("If-Range", file.etag) != file.etag:
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if first:
        start, stop = int(first), min(int(last) + 1 if last else file.size, file.size)
        if last and int(last) < int(first):
            return None
    else:
        start, stop = max(0, file.size - int(last)), file.size
    if start >= file.size:
        raise RangeNotSatisfiable(
            f"the file has {file.size} bytes", headers={"Content-Range": f"bytes */{file.size}", "ETag": file.etag}
        )
    return _Span(start, stop)
