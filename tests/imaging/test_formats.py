"""The table of formats, by which everything else recognizes, reads, names and encodes them."""

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from service.imaging.encode import encode
from service.imaging.formats import (
    DEFAULT_FORMATS,
    FORMATS,
    NAMES,
    READABLE,
    TABLE,
    AvifEncoding,
    Format,
    listed,
    sniff,
)
from service.imaging.probe import probe
from service.store.layout import EXPORT_NAME

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", DEFAULT_FORMATS)
def test_what_a_row_encodes_is_recognized_and_read_by_the_same_row(name: Format) -> None:
    encoding = TABLE[name].encoding
    assert encoding is not None
    data = encode(Image.new("RGB", (5, 3), "teal"), encoding(), (255, 255, 255))
    assert (encoding.format, sniff(data[:16]), probe(data, 15).format) == (name, name, name)


def test_avif_is_written_but_not_read() -> None:
    data = encode(Image.new("RGB", (5, 3), "teal"), AvifEncoding(), (255, 255, 255))
    with Image.open(BytesIO(data)) as image:
        assert (image.format, image.size) == ("AVIF", (5, 3))
    assert sniff(data[:16]) is None


@pytest.mark.parametrize("name", TABLE)
def test_pillow_knows_each_row_by_its_name(name: Format) -> None:
    row = TABLE[name]
    assert row.pillow in Image.OPEN
    assert Image.MIME[row.pillow] == row.mime


def test_no_two_rows_share_a_suffix_or_a_mime_type() -> None:
    assert len({row.suffix for row in TABLE.values()}) == len({row.mime for row in TABLE.values()}) == len(TABLE)


@pytest.mark.parametrize("name", FORMATS)
def test_the_names_of_exports_end_in_the_suffix_of_their_format(name: Format) -> None:
    assert EXPORT_NAME.fullmatch(f"export_{'a' * 32}{TABLE[name].suffix}")
    assert not EXPORT_NAME.fullmatch(f"export_{'a' * 32}{TABLE[name].suffix.replace('.', '-')}")


def test_a_request_may_call_a_format_by_its_aliases() -> None:
    assert NAMES == {"png": "png", "jpeg": "jpeg", "jpg": "jpeg", "webp": "webp", "avif": "avif", "gif": "gif"}


@pytest.mark.parametrize("head", [b"", b"\x89PNG", b"GIF88a" + bytes(10), b"RIFF\n\n\n\nWAVEfmt ", b" \xff\xd8\xff"])
def test_other_bytes_are_no_format(head: bytes) -> None:
    assert sniff(head) is None


def test_a_line_end_in_a_riff_length_is_a_length() -> None:
    assert sniff(b"RIFF\n\r\n\0WEBPVP8 ") == "webp"


def test_words_are_listed_as_in_a_sentence() -> None:
    assert listed(["a", "b", "c"], "and") == "a, b and c"
    assert READABLE == "PNG, JPEG, WebP or GIF"


def test_the_docs_list_every_format() -> None:
    api, python = ((DOCS / name).read_text() for name in ("api.md", "python.md"))
    assert f"of {listed(FORMATS, 'and')}, comma-separated" in api
    assert f"the bytes of a {READABLE} file" in python
    keys = [f'`"{name}"`' for name in DEFAULT_FORMATS]
    assert f"a dict of {listed(keys, 'and')}" in python
