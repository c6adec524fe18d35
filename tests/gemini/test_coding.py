"""Content-Encoding, decoded in chunks of any size."""

import gzip
import zlib

import pytest

from service.emulator.wrappings import bare_deflate
from service.gemini.coding import PIECE, ContentDecoder, codings

BODY = b'{"candidates": [%s]}' % (b"1234567890," * 1000)


def gzipped(data: bytes) -> bytes:
    """Without a timestamp, so that all pytest-xdist workers collect the same test ids."""
    return gzip.compress(data, mtime=0)


def decoded(data: bytes, encoding: str, step: int) -> bytes:
    decoder, pieces = ContentDecoder(encoding), []
    for at in range(0, len(data), step):
        decoder.feed(data[at : at + step])
        while piece := decoder.piece():
            pieces.append(piece)
    pieces += decoder.end()
    assert all(len(piece) <= PIECE for piece in pieces)
    return b"".join(pieces)


@pytest.mark.parametrize("step", [1, 7, 1000, 10**9])
@pytest.mark.parametrize(
    ("coded", "encoding"),
    [
        (BODY, ""), (BODY, "gzip"), (BODY, "deflate"), (BODY, "br"), (BODY, "identity"),
        (gzipped(BODY), "gzip"), (gzipped(BODY), "x-gzip"), (gzipped(BODY), ""),
        (gzipped(BODY[:99]) + gzipped(BODY[99:]), "gzip"),
        (gzipped(BODY) + b"padding", "gzip"),
        (gzipped(BODY)[:-8], "gzip"), (gzipped(BODY)[:-8] + bytes(8), "gzip"),
        (zlib.compress(BODY), "deflate"), (bare_deflate(BODY), "Deflate "),
    ],
)  # fmt: skip
def test_every_encoding_is_decoded(coded: bytes, encoding: str, step: int) -> None:
    assert decoded(coded, encoding, step) == BODY


@pytest.mark.parametrize("body", [b"", b"7", b"{}", b"\x1f"])
def test_a_body_too_short_for_any_encoding_is_passed_through(body: bytes) -> None:
    assert decoded(body, "gzip", 1) == body


def test_a_decompression_bomb_is_decoded_in_pieces() -> None:
    assert decoded(gzip.compress(bytes(20 * PIECE)), "gzip", 10**9) == bytes(20 * PIECE)


def test_corrupt_data_is_decoded_up_to_the_corruption() -> None:
    stored = zlib.compressobj(0, zlib.DEFLATED, 31)
    coded = bytearray(stored.compress(BODY * 20) + stored.flush())
    coded[-8:-4] = b"oops"
    assert decoded(bytes(coded), "gzip", 70_000) == BODY * 20


def test_data_that_cannot_be_decoded_is_passed_through() -> None:
    assert decoded(b"\x1f\x8bnot gzip", "gzip", 100) == b"\x1f\x8bnot gzip"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], [""]),
        (["gzip"], ["gzip"]),
        (["identity"], [""]),
        (["deflate, gzip"], ["gzip", "deflate"]),
        (["a", "b,c"], ["c", "b", "a"]),
        (["gzip," * 9], ["gzip"] * 4),
    ],
)
def test_codings_are_decoded_in_reverse_order(headers: list[str], expected: list[str]) -> None:
    assert codings(headers) == expected
