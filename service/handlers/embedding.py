"""Answers in JSON in which files stand as base64: read, encoded and sent piece by piece, whatever their size."""

import asyncio
from binascii import b2a_base64
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from math import ceil

from aiohttp import web

from service.errors import NotFound
from service.schemas.answers import ExportAnswer
from service.server.keys import EXPORTS, METRICS, SETTINGS
from service.server.throughput import MinimumThroughput, supervised_sending
from service.store.local import StoredFile

# A multiple of 3 bytes, so that the base64 of pieces is that of the whole.
PIECE_BYTES = 3 * 64 * 1024


@asynccontextmanager
async def opened(request: web.Request, exports: Sequence[ExportAnswer]) -> AsyncIterator[list[StoredFile]]:
    """The files of exports, open before anything is sent; raises NotFound if one was removed."""
    store = request.app[EXPORTS].store
    async with AsyncExitStack() as stack:
        files = []
        for export in exports:
            try:
                file = await store.open(export.file_path)
            except NotFound:
                raise NotFound("the picture was removed: its time of retention is over") from None
            stack.callback(file.close)
            files.append(file)
        yield files


async def send(
    request: web.Request, texts: Sequence[bytes], files: Sequence[StoredFile], headers: dict[str, str]
) -> web.StreamResponse:
    """Send JSON that is `texts` with a file between each two of them; raises ConnectionResetError."""
    length = sum(map(len, texts)) + sum(4 * ceil(file.size / 3) for file in files)
    response = web.StreamResponse(
        headers={"Content-Type": "application/json", "Content-Length": str(length), **headers}
    )
    await response.prepare(request)
    await write(request, response, texts, files)
    await response.write_eof()
    return response


async def write(
    request: web.Request, response: web.StreamResponse, texts: Sequence[bytes], files: Sequence[StoredFile]
) -> None:
    """Write `texts` with a file between each two of them; a client that reads too slowly is disconnected."""
    settings = request.app[SETTINGS]
    if request.transport:
        # Let `drain` wait until all is sent.
        request.transport.set_write_buffer_limits(0)
    rule = MinimumThroughput(settings.download_stall_seconds, settings.download_min_bytes_per_second)
    async with supervised_sending(request, rule):
        for text, file in zip(texts, [*files, None], strict=True):
            await response.write(text)
            if file:
                await _write_file(request, response, file)
        await request.writer.drain()


async def _write_file(request: web.Request, response: web.StreamResponse, file: StoredFile) -> None:
    for start in range(0, file.size, PIECE_BYTES):
        piece = await asyncio.to_thread(_encoded, file, start)
        await response.write(piece)
        request.app[METRICS].sent(len(piece))


def _encoded(file: StoredFile, start: int) -> bytes:
    """One piece in base64; raises OSError if the file is shorter than it was: the client waits for all of it."""
    piece = file.piece(start, PIECE_BYTES)
    if len(piece) < min(PIECE_BYTES, file.size - start):
        raise OSError("the file became shorter than promised")
    return b2a_base64(piece, newline=False)
