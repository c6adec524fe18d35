"""All variants of base64."""

import base64
from urllib.parse import quote

import pytest

from service.gemini import blobs
from service.gemini.blobs import PIECE

DATA = bytes(range(256)) * 5
STANDARD = base64.b64encode(DATA).decode()
URL_SAFE = base64.urlsafe_b64encode(DATA).decode()


def wrapped(text: str, width: int = 76, end: str = "\n") -> str:
    return end.join(text[at : at + width] for at in range(0, len(text), width))


@pytest.mark.parametrize(
    "text",
    [
        STANDARD, URL_SAFE, STANDARD.rstrip("="), URL_SAFE.rstrip("="), STANDARD + "==", wrapped(STANDARD),
        wrapped(URL_SAFE, 64, "\r\n"), f" \t{STANDARD} \n", f"data:image/png;base64,{STANDARD}",
        f"\nDATA:image/png;charset=x;Base64, {wrapped(STANDARD.rstrip('='))}", f"data:;base64,{URL_SAFE}",
        quote(STANDARD, safe=""), f"data:image/png;base64,{quote(STANDARD, safe='')}",
        STANDARD[:100] + URL_SAFE[100:],
    ],
)  # fmt: skip
def test_every_variant_of_base64_is_decoded(text: str) -> None:
    assert blobs.decode(text.encode()) == DATA
    assert blobs.decode(memoryview(text.encode())) == DATA
    assert blobs.head(text.encode()) == DATA[:16]


def test_blocks_that_are_padded_one_by_one_are_decoded() -> None:
    text = b"".join(base64.b64encode(DATA[at : at + 100]) for at in range(0, len(DATA), 100))
    assert blobs.decode(text) == DATA
    assert blobs.decode(wrapped(text.decode(), 3).encode()) == DATA


@pytest.mark.parametrize("extra", [0, 1, 2, 3, 5])
@pytest.mark.parametrize(
    "spell", [bytes, lambda data: wrapped(data.decode(), 77).encode(), lambda data: data.rstrip(b"=")]
)
def test_data_of_more_than_one_piece_is_decoded(extra: int, spell: type[bytes]) -> None:
    data = DATA * (PIECE // len(DATA)) + DATA[:extra]
    assert blobs.decode(spell(base64.b64encode(data))) == data


@pytest.mark.parametrize(
    "text", ["!", "not base64!", "abcde", "ab*d", "é", "\x00", "a", "data:image/png,abcd!", "%zz%"]
)
def test_invalid_base64_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of any wording
        blobs.decode(text.encode())
    blobs.head(text.encode())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("no picture", []),
        ("data:image/png;base64,", []),
        (f"![](data:image/png;base64,{STANDARD}) Enjoy.", [("image/png", DATA)]),
        (f"Here: data:IMAGE/PNG;name=a.png;base64,{URL_SAFE.rstrip('=')}\nEnjoy the picture.", [("image/png", DATA)]),
        (f'<img src="data:;base64,{STANDARD}"> <img src="data:a/b;base64,AAAA">', [("", DATA), ("a/b", bytes(3))]),
        (f"data:image/png;base64,\n{wrapped(STANDARD)}\nEnjoy the picture.", [("image/png", DATA)]),
        (f"(data:image/png;base64,{wrapped(URL_SAFE, 64, chr(13) + chr(10))})", [("image/png", DATA)]),
    ],
)
def test_data_uris_are_found_in_a_text(text: str, found: list[tuple[str, bytes]]) -> None:
    assert [(mime, blobs.decode(data.encode())) for mime, data in blobs.data_uris(text)] == found


@pytest.mark.parametrize("text", ["data:", "data:;", "data:;a", "data:;a;a;a;a;a;a;a;a;a;a"])
def test_a_text_full_of_incomplete_data_uris_is_searched_in_linear_time(text: str) -> None:
    assert list(blobs.data_uris(text * 100_000)) == []
