"""Reads multipart/form-data as a stream: text fields into memory, files into uploads/, all within limits."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from service.bases import Source, source_of
from service.errors import (
    MalformedBody,
    NotUtf8,
    TooLarge,
    UnsupportedEncoding,
    UnsupportedImage,
)
from service.handlers.uploads import UploadWriter
from service.imaging.formats import READABLE, SNIFF_BYTES, sniff
from service.schemas.collecting import MAX_FIELDS, Collected
from service.schemas.fields import Fields
from service.server.bodies import Body
from service.server.keys import ADMISSION, EXPORTS, NEW_ID, SETTINGS
from service.server.receiving import chunks, receiving
from service.settings import MIB
from service.store.disk import storage_errors
from service.store.holds import Hold, held
from service.store.layout import upload_key

MAX_BOUNDARY = 200
# Chunks are collected into writes of this size, since each write takes a thread.
WRITE_BYTES = 64 * 1024
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_PLAIN_TRANSFER = ("", "7bit", "8bit", "binary")


@dataclass(slots=True)
class Form:
    """A complete body. Its uploads, stored under `keys`, are removed with its context unless `keep` is set."""

    fields: Fields
    uploads: dict[str, Source]
    keys: dict[str, str]
    keep: bool = False


@dataclass(slots=True)
class _Part:
    """The part being read; `head` holds the bytes not written to a file yet, and all those of a text.

    `key` is set once the first bytes of a file have been recognized as a picture.
    """

    name: str
    is_file: bool
    named: bool
    head: bytearray = field(default_factory=bytearray)
    size: int = 0
    key: str | None = None


@contextlib.asynccontextmanager
async def open_multipart(
    request: web.Request, parameters: Mapping[str, str], collected: Collected
) -> AsyncIterator[Form]:
    """Read a multipart body, with the parameters of its Content-Type; as `open_form`."""
    parser = _parser(parameters)
    async with held() as hold:
        reader = _FormReader(request, collected, hold)
        form: Form | None = None
        try:
            form = await reader.read(parser)
            yield form
        finally:
            if form is None or not form.keep:
                await reader.discard()


def _parser(parameters: Mapping[str, str]) -> PushMultipartParser:
    boundary = parameters.get("boundary", "")
    if not 0 < len(boundary) <= MAX_BOUNDARY:
        raise MalformedBody(f"multipart/form-data needs a boundary of 1 to {MAX_BOUNDARY} characters")
    try:
        # File names may have any encoding, and latin-1 decodes them all; field names are ASCII.
        return PushMultipartParser(boundary, max_segment_count=MAX_FIELDS, header_charset="latin-1")
    except (MultipartError, UnicodeError) as error:
        raise MalformedBody(f"the boundary cannot be used: {error}") from None


class _FormReader:
    """Collects fields and files from the events of the multipart parser."""

    def __init__(self, request: web.Request, collected: Collected, hold: Hold) -> None:
        self._request = request
        self._store = request.app[EXPORTS].store
        self._admission = request.app[ADMISSION]
        self._collected = collected
        self._file_bytes = request.app[SETTINGS].max_upload_bytes
        self._body: Body | None = None
        self._writer = UploadWriter(self._store, hold, self._claim)
        self._part: _Part | None = None
        self._files: dict[str, str] = {}

    async def read(self, parser: PushMultipartParser) -> Form:
        most = 2 * self._file_bytes + MIB
        async with receiving(self._request, most) as self._body:
            async for chunk in chunks(self._body, most):
                await self._feed(parser, chunk)
        return await self._finish(parser)

    async def discard(self) -> None:
        """Remove the uploads."""
        await self._writer.discard()

    async def _claim(self, count: int) -> None:
        if self._body:
            await self._admission.spool(self._body, count)

    async def _feed(self, parser: PushMultipartParser, chunk: bytes) -> None:
        try:
            events = list(parser.parse(chunk))
        except MultipartError as error:
            # Its other arguments are not meant for clients.
            raise MalformedBody(f"the multipart body is malformed: {error.args[0]}") from None
        for event in events:
            if isinstance(event, MultipartSegment):
                self._part = self._begin(event)
            elif self._part and event is None:
                await self._end(self._part)
            elif self._part and event:
                await self._data(self._part, event)

    async def _finish(self, parser: PushMultipartParser) -> Form:
        try:
            parser.close()
        except MultipartError as error:
            raise MalformedBody(f"the multipart body is cut: {error}") from None
        with storage_errors("uploads"):
            uploads = {
                name: await asyncio.to_thread(source_of, self._store.local(key)) for name, key in self._files.items()
            }
        return Form(self._collected.fields(), uploads, self._files)

    def _begin(self, segment: MultipartSegment) -> _Part:
        if "name" not in parse_options_header(segment.header("Content-Disposition", "") or "")[1]:
            raise MalformedBody("a part has no name")
        if any(map(_CONTROL.search, _texts_of(segment))):
            raise MalformedBody("a part's header holds a control character")
        name = self._collected.begin(segment.name.encode("latin-1").decode("utf-8", "replace"))
        transfer = segment.header("Content-Transfer-Encoding", "") or ""
        if transfer.lower() not in _PLAIN_TRANSFER or segment.header("Content-Encoding"):
            raise UnsupportedEncoding(f"{name}: send the part's bytes as they are", param=name)
        return _Part(name, name in self._collected.files, bool(segment.filename))

    async def _data(self, part: _Part, data: bytes) -> None:
        part.size += len(data)
        if not part.is_file:
            self._collected.check_length(part.name, part.size)
            if self._body:
                self._admission.bodies.buffer(self._body, len(data))
            part.head += data
            return
        part.head += data
        if part.key is None and len(part.head) >= SNIFF_BYTES:
            self._recognize(part)
        if part.size > self._file_bytes:
            raise TooLarge(f"{part.name} is larger than {self._file_bytes} bytes", param=part.name)
        if len(part.head) >= WRITE_BYTES:
            await self._flush(part)

    def _recognize(self, part: _Part) -> None:
        """Determine the type of a file by its magic bytes, whatever its name and Content-Type say."""
        kind = sniff(bytes(part.head[:SNIFF_BYTES]))
        if kind is None:
            raise UnsupportedImage(f"{part.name} is not a {READABLE} picture by its bytes", param=part.name)
        part.key = self._files[part.name] = upload_key(self._request[NEW_ID], part.name, kind)

    async def _flush(self, part: _Part) -> None:
        data, part.head = bytes(part.head), bytearray()
        await self._writer.write(self._files[part.name], data)

    async def _end(self, part: _Part) -> None:
        if not part.is_file:
            self._collected.add(part.name, _utf8(part))
        elif part.size or part.named:
            if part.key is None:
                self._recognize(part)
            await self._flush(part)
            await self._writer.close()
        self._part = None


def _texts_of(segment: MultipartSegment) -> Iterator[str]:
    """The part's name and headers, without its file name, which is not used."""
    yield segment.name
    for name, value in segment.headerlist:
        if name != "Content-Disposition":
            yield from (name, value)


def _utf8(part: _Part) -> str:
    try:
        return part.head.decode("utf-8")
    except UnicodeDecodeError:
        raise NotUtf8(f"{part.name} is not UTF-8", param=part.name) from None
