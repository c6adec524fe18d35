"""Incremental decoding of Content-Encoding; a body that is not encoded as declared is passed through."""

import asyncio
import contextlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

# Sent as Accept-Encoding: the encodings that the standard library can decode.
ACCEPTED = "gzip, deflate"
# The largest piece, in bytes: a few kilobytes can decompress to megabytes.
PIECE = 1024 * 1024

# A proxy may compress a compressed body again; a longer list of codings is an attack.
MAX_CODINGS = 4

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP, _RAW_DEFLATE = 16 + zlib.MAX_WBITS, -zlib.MAX_WBITS
# First bytes of JSON; only tiny deflated data begins with one of them.
_PLAIN = b"{[ \t\r\n\xef"


def codings(headers: Sequence[str]) -> list[str]:
    """The codings of the Content-Encoding headers, the last applied first; at least one, so that gzip is detected."""
    listed = [coding.strip().lower() for header in headers for coding in header.split(",")]
    applied = [coding for coding in listed if coding not in ("", "identity")]
    return applied[::-1][:MAX_CODINGS] or [""]


class ContentDecoder:
    """Decodes one body: call `feed` with each chunk, then `piece` until it returns nothing; call `end` last."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding.strip().lower()
        self._waiting = b""
        self._inflater: Any = None
        # Whether a gzip member is being decoded, whether it gave any data, and whether the rest is ignored.
        self._decoding = self._has_output = self._ignoring = False

    def feed(self, data: bytes) -> None:
        if not self._ignoring:
            self._waiting += data

    def piece(self) -> bytes:
        # Two bytes tell whether the data is compressed.
        if not self._decoding and len(self._waiting) > 1:
            self._begin()
        if self._ignoring or not self._decoding:
            return b""
        data, self._waiting = self._waiting, b""
        piece = self._inflate(data) if self._inflater else data
        self._has_output = self._has_output or bool(piece)
        return piece

    async def next_piece(self) -> bytes:
        """The same as `piece`, in a thread if there is something to decompress."""
        return await asyncio.to_thread(self.piece) if self._inflater else self.piece()

    def end(self) -> Iterator[bytes]:
        """The remaining pieces, at the end of the body."""
        self._decoding, self._ignoring = True, self._ignoring or not (self._decoding or not self._has_output)
        while piece := self.piece():
            yield piece

    def _begin(self) -> None:
        inflater = _inflater(self._encoding, self._waiting)
        # A complete gzip member is followed by another one, or by padding.
        self._ignoring = self._has_output and not self._waiting.startswith(_GZIP_MAGIC)
        self._decoding, self._inflater = True, inflater

    def _inflate(self, data: bytes) -> bytes:
        before = self._inflater.copy()
        try:
            piece: bytes = self._inflater.decompress(data, PIECE)
        except zlib.error:
            return self._salvage(before, data)
        self._waiting = self._inflater.unconsumed_tail
        if self._inflater.eof:
            self._decoding, self._waiting = False, self._inflater.unused_data
        return piece

    def _salvage(self, inflater: Any, data: bytes) -> bytes:
        """The data up to the corruption; if there is none, the input unchanged."""
        pieces, size = [], 0
        with contextlib.suppress(zlib.error):
            for at in range(len(data)):
                pieces.append(inflater.decompress(data[at : at + 1], PIECE))
                if (size := size + len(pieces[-1])) > PIECE:
                    break
        if size or self._has_output:
            self._ignoring = True
            return b"".join(pieces)
        self._inflater = None
        return data


def _inflater(encoding: str, head: bytes) -> Any:
    """A decompressor, or None for data that is not compressed. The magic bytes override the header."""
    if head.startswith(_GZIP_MAGIC):
        return zlib.decompressobj(_GZIP)
    if encoding != "deflate" or head[0] in _PLAIN:
        return None
    # Some servers send raw deflate data, without the two bytes of the zlib header.
    zlib_header = head[0] & 0x0F == zlib.DEFLATED and int.from_bytes(head[:2], "big") % 31 == 0
    return zlib.decompressobj(zlib.MAX_WBITS if zlib_header else _RAW_DEFLATE)
