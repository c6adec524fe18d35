"""multipart/form-data -> fields and stored uploads; every byte is counted as it comes."""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field

import aiofiles
from aiofiles.threadpool.binary import AsyncBufferedIOBase
from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import BadHttpMessage
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from service.bases import Source, source_of
from service.errors import (
    BodyTimeout,
    DuplicateField,
    InvalidField,
    MalformedBody,
    NotUtf8,
    ServiceError,
    TooLarge,
    UnknownField,
    UnsupportedEncoding,
    UnsupportedImage,
    UnsupportedMediaType,
)
from service.imaging.formats import SNIFF_BYTES, sniff
from service.schemas.fields import MAX_SCRIPT, Fields, script_too_long
from service.settings import MIB
from service.store.disk import storage_errors
from service.store.holds import Hold, held
from service.store.layout import upload_key
from service.store.local import LocalStore

# UTF-8 takes at most 4 bytes a character.
MAX_TEXT_BYTES = 4 * MAX_SCRIPT
MAX_SHORT_BYTES = 1_000
MAX_PARTS = 64
MAX_BOUNDARY = 200
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_PLAIN_TRANSFER = ("", "7bit", "8bit", "binary")


@dataclass(slots=True)
class Form:
    """A form that was read whole. Its uploads go away if the request is refused, unless `keep` was set."""

    fields: Fields
    uploads: dict[str, Source]
    keep: bool = False


@dataclass(slots=True)
class _Limits:
    """What may come: names of text and file fields, bytes per file and per body, seconds without progress."""

    texts: Collection[str]
    files: Collection[str]
    file_bytes: int
    stall_seconds: float

    @property
    def body_bytes(self) -> int:
        return 2 * self.file_bytes + MIB


@dataclass(slots=True)
class _Part:
    """The part that is being read: a text, or a file once its first bytes have shown a picture."""

    name: str
    is_file: bool
    named: bool
    head: bytearray = field(default_factory=bytearray)
    size: int = 0
    key: str | None = None
    file: AsyncBufferedIOBase | None = None


@contextlib.asynccontextmanager
async def open_form(
    request: web.Request,
    store: LocalStore,
    request_id: str,
    *,
    texts: Collection[str],
    files: Collection[str],
    file_bytes: int,
    stall_seconds: float,
) -> AsyncIterator[Form]:
    """Read the body; raises RequestError for what the client did wrong, StorageFull or StorageUnavailable.

    The uploads are held against sweeps while the context is open, and removed when it ends with an exception.
    """
    limits = _Limits(texts, files, file_bytes, stall_seconds)
    parser = _parser(request, limits)
    async with held() as hold:
        reader = _FormReader(store, request_id, limits, hold)
        form: Form | None = None
        try:
            async for chunk in _chunks(request, limits):
                await reader.feed(parser, chunk)
            form = await reader.finish(parser)
            yield form
        except BaseException:
            with contextlib.suppress(ServiceError):
                await reader.close_file()
            if form is None or not form.keep:
                await store.remove(reader.keys)
            raise


def _parser(request: web.Request, limits: _Limits) -> PushMultipartParser:
    if "Content-Encoding" in request.headers:
        raise UnsupportedEncoding("send the body without Content-Encoding")
    kind, options = parse_options_header(request.headers.get("Content-Type", ""))
    if kind != "multipart/form-data":
        raise UnsupportedMediaType("send the fields as multipart/form-data")
    boundary = options.get("boundary", "")
    if not 0 < len(boundary) <= MAX_BOUNDARY:
        raise MalformedBody(f"multipart/form-data needs a boundary of 1 to {MAX_BOUNDARY} characters")
    if (request.content_length or 0) > limits.body_bytes:
        raise _body_too_large(limits)
    try:
        return PushMultipartParser(boundary, max_segment_count=MAX_PARTS)
    except (MultipartError, UnicodeError) as error:
        raise MalformedBody(f"the boundary cannot be used: {error}") from None


async def _chunks(request: web.Request, limits: _Limits) -> AsyncIterator[bytes]:
    """The body as it comes, bounded in bytes and in seconds without progress."""
    await _say_continue(request)
    total = 0
    while True:
        try:
            async with asyncio.timeout(limits.stall_seconds):
                chunk = await request.content.readany()
        except TimeoutError:
            raise BodyTimeout(f"no byte of the body came for {limits.stall_seconds:g} seconds") from None
        except (ClientPayloadError, BadHttpMessage, web.RequestPayloadError):
            raise MalformedBody("the body's transfer encoding is broken") from None
        if not chunk:
            return
        total += len(chunk)
        if total > limits.body_bytes:
            raise _body_too_large(limits)
        yield chunk


async def _say_continue(request: web.Request) -> None:
    """Only now does a client that asked before sending hear that it may."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.version >= (1, 1):
        writer = request.writer
        await writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        writer.output_size = 0


class _FormReader:
    """Takes the parser's events one by one; at most one file is open at a time."""

    def __init__(self, store: LocalStore, request_id: str, limits: _Limits, hold: Hold) -> None:
        self._store = store
        self._request_id = request_id
        self._limits = limits
        self._hold = hold
        self._part: _Part | None = None
        self._seen: set[str] = set()
        self._texts: dict[str, str] = {}
        self._files: dict[str, str] = {}
        self.keys: list[str] = []

    async def feed(self, parser: PushMultipartParser, chunk: bytes) -> None:
        try:
            events = list(parser.parse(chunk))
        except MultipartError as error:
            # What else the error may carry is for programmers.
            raise MalformedBody(f"the multipart body is malformed: {error.args[0]}") from None
        for event in events:
            if isinstance(event, MultipartSegment):
                self._part = self._begin(event)
            elif self._part and event is None:
                await self._end(self._part)
            elif self._part and event:
                await self._data(self._part, event)

    async def finish(self, parser: PushMultipartParser) -> Form:
        try:
            parser.close()
        except MultipartError as error:
            raise MalformedBody(f"the multipart body is cut: {error}") from None
        uploads = {
            name: await asyncio.to_thread(source_of, self._store.local(key)) for name, key in self._files.items()
        }
        return Form(Fields(self._texts), uploads)

    def _begin(self, segment: MultipartSegment) -> _Part:
        name = segment.name
        if "name" not in parse_options_header(segment.header("Content-Disposition", "") or "")[1]:
            raise MalformedBody("a part has no name")
        if any(_CONTROL.search(text) for header in segment.headerlist for text in header):
            raise MalformedBody("a part's header holds a control character")
        if name not in self._limits.texts and name not in self._limits.files:
            allowed = ", ".join([*self._limits.texts, *self._limits.files])
            raise UnknownField(f"unknown field {name[:60]!r}; allowed: {allowed}")
        if name in self._seen:
            raise DuplicateField(f"{name} came twice")
        transfer = segment.header("Content-Transfer-Encoding", "") or ""
        if transfer.lower() not in _PLAIN_TRANSFER or segment.header("Content-Encoding"):
            raise UnsupportedEncoding(f"{name}: send the part's bytes as they are")
        self._seen.add(name)
        return _Part(name, name in self._limits.files, bool(segment.filename))

    async def _data(self, part: _Part, data: bytes) -> None:
        part.size += len(data)
        if not part.is_file:
            self._keep_text(part, data)
        elif part.file:
            await self._write(part, data)
        else:
            part.head += data
            if len(part.head) >= SNIFF_BYTES:
                await self._open(part)

    def _keep_text(self, part: _Part, data: bytes) -> None:
        if part.name == "script":
            if part.size > MAX_TEXT_BYTES:
                raise script_too_long()
        elif part.size > MAX_SHORT_BYTES:
            raise InvalidField(f"{part.name} is too long: at most {MAX_SHORT_BYTES} bytes are allowed")
        part.head += data

    async def _open(self, part: _Part) -> None:
        """The first bytes decide what a file is, whatever its name and declared type say."""
        kind = sniff(bytes(part.head[:SNIFF_BYTES]))
        if kind is None:
            raise UnsupportedImage(f"{part.name} is not a PNG, JPEG or WebP picture by its bytes")
        part.key = upload_key(self._request_id, part.name, kind)
        self.keys.append(part.key)
        with storage_errors("uploads"):
            part.file = await aiofiles.open(self._store.local(part.key), "xb")
        self._hold.adopt(os.dup(part.file.fileno()))
        head, part.head = bytes(part.head), bytearray()
        await self._write(part, head)

    async def _write(self, part: _Part, data: bytes) -> None:
        if part.size > self._limits.file_bytes:
            raise TooLarge(f"{part.name} is larger than {self._limits.file_bytes} bytes")
        if part.file:
            with storage_errors("uploads"):
                await part.file.write(data)

    async def _end(self, part: _Part) -> None:
        if not part.is_file:
            self._texts[part.name] = _utf8(part)
        elif part.size or part.named:
            if not part.file:
                await self._open(part)
            if part.key:
                self._files[part.name] = part.key
            await self.close_file()
        self._part = None

    async def close_file(self) -> None:
        """A write that was buffered may find the disk full only now."""
        if self._part and self._part.file:
            file, self._part.file = self._part.file, None
            with storage_errors("uploads"):
                await file.close()


def _utf8(part: _Part) -> str:
    try:
        return part.head.decode("utf-8")
    except UnicodeDecodeError:
        raise NotUtf8(f"{part.name} is not UTF-8") from None


def _body_too_large(limits: _Limits) -> TooLarge:
    return TooLarge(f"the body is larger than {limits.body_bytes} bytes; a file may have {limits.file_bytes}")
