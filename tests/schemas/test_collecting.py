"""The same fields are read from JSON and from urlencoded bodies, and each error names its field."""

import json
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import DuplicateField, InvalidField, MalformedBody, NotUtf8, ServiceError, UnknownField
from service.schemas.collecting import MAX_FIELDS, MAX_SHORT_BYTES, MAX_TEXT_BYTES, Collected
from service.schemas.fields import Fields
from service.schemas.json_body import read_json
from service.schemas.json_fields import fields_of_json
from service.schemas.requests import THUMBNAIL_FIELDS
from service.schemas.urlencoded import fields_of_urlencoded

Texts = dict[str, str]


def present(fields: Fields) -> Texts:
    return {name: text for name, text in fields.texts.items() if text}


def of_json(body: str) -> Texts:
    return present(fields_of_json(read_json(body.encode()), Collected(THUMBNAIL_FIELDS, ("image",))))


def of_urlencoded(body: bytes) -> Texts:
    return present(fields_of_urlencoded(body, Collected(THUMBNAIL_FIELDS, ("image",))))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('"x"', "x"), ("5", "5"), ("0.70", "0.7"), ("1e2", "100"), ("100.0", "100"), ("true", "true"),
        ("false", "false"), ('"on"', "on"), ('"0.70"', "0.70"), ('" x "', " x "), ('"a\\u0000b"', "a\0b"),
    ],
)  # fmt: skip
def test_a_json_value_stands_for_a_text(value: str, text: str) -> None:
    assert of_json(f'{{"script": {value}}}') == {"script": text}


@pytest.mark.parametrize("name", ["script", "count", "formats", "max_bytes", "image"])
@pytest.mark.parametrize("value", ["null", "[]", '""'])
def test_null_an_empty_list_and_an_empty_text_count_as_absent(name: str, value: str) -> None:
    if (name, value) != ("image", '""'):
        assert of_json(f'{{"{name}": {value}}}') == {}


@pytest.mark.parametrize(
    ("value", "text"),
    [('["png", "webp"]', "png,webp"), ('["webp"]', "webp"), ('"png,jpeg"', "png,jpeg"), ('["png,jpeg", "avif"]',
     "png,jpeg,avif"), ('[""]', ""), ("[1, true]", "1,true")],
)  # fmt: skip
def test_formats_may_be_a_list(value: str, text: str) -> None:
    assert of_json(f'{{"formats": {value}}}').get("formats", "") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [('{"webp": 50000, "png": 2e5}', "webp:50000,png:200000"), ("{}", ""), ("70000", "70000"), ('"png:5"', "png:5"),
     ('{"png": "9"}', "png:9"), ('{"png": null, "jpeg": 3}', "jpeg:3")],
)  # fmt: skip
def test_max_bytes_may_be_an_object_whose_order_is_kept(value: str, text: str) -> None:
    assert of_json(f'{{"max_bytes": {value}}}').get("max_bytes", "") == text


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ('"script": ["x"]', "script: an array"), ('"script": {}', "script: an object"), ('"count": [1]', "count"),
        ('"max_bytes": [1]', "max_bytes"), ('"max_bytes": {"png": [1]}', "max_bytes"),
        ('"max_bytes": {"png:1,webp": 2}', "max_bytes"), ('"max_bytes": {"png": "1,webp:2"}', "max_bytes"),
        ('"formats": {"png": true}', "formats: an object"), ('"formats": [["png"]]', "formats: an array"),
        ('"formats": [null]', "formats: null"), ('"formats": [{}]', "formats"), ('"width": {"a": 1}', "width"),
    ],
)  # fmt: skip
def test_a_json_value_of_another_type_is_refused(field: str, said: str) -> None:
    with pytest.raises(InvalidField, match=said):
        of_json(f"{{{field}}}")


@pytest.mark.parametrize("value", ['"data:image/png;base64,AAAA"', "1", "true", "{}", '["x"]', '{"url": "x"}'])
def test_a_file_in_json_is_refused_and_multipart_is_named(value: str) -> None:
    with pytest.raises(InvalidField, match=r"image.*multipart/form-data"):
        of_json(f'{{"image": {value}}}')


def test_a_file_in_a_urlencoded_body_is_refused_unless_it_is_empty() -> None:
    assert of_urlencoded(b"script=x&image=") == {"script": "x"}
    with pytest.raises(InvalidField, match=r"image.*multipart/form-data"):
        of_urlencoded(b"script=x&image=picture.png")


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (b"", {}), (b"&&", {}), (b"script=a+b%20c%2B", {"script": "a b c+"}), (b"script=a=b", {"script": "a=b"}),
        (b"script", {}), (b"&script=x&", {"script": "x"}), (b"%73cript=x", {"script": "x"}),
        (b"script=%C3%bc", {"script": "ü"}), ("script=ü 😀".encode(), {"script": "ü 😀"}),
        (b"script=a%00b\nc", {"script": "a\0b\nc"}), (b"script=a%26b%3Dc%25", {"script": "a&b=c%"}),
        (b"script=a;count=2", {"script": "a;count=2"}),
        (rb"script=\x41\n%5Cn\\%5C\u00e9\N{DASH}", {"script": r"\x41\n\n\\\\u00e9\N{DASH}"}),
        (b"aspect_ratio=16:9", {"aspect_ratio": "16:9"}),
        (b"formats=png&formats=webp", {"formats": "png,webp"}), (b"formats=png%2Cjpeg&formats=&formats=avif",
        {"formats": "png,jpeg,avif"}), (b"formats=&formats=", {}),
    ],
)  # fmt: skip
def test_a_urlencoded_body_is_read_as_browsers_write_it(body: bytes, texts: Texts) -> None:
    assert of_urlencoded(body) == texts


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"script=50%", MalformedBody), (b"script=%G1", MalformedBody), (b"script=%1", MalformedBody),
        (b"script=%u00fc", MalformedBody), (b"%=1", MalformedBody), (b"script=%%41", MalformedBody),
        (b"script=%FF", NotUtf8), (b"script=caf\xe9", NotUtf8), (b"script=%ED%A0%80", NotUtf8), (b"%ff=1", NotUtf8),
        (b"script=%C3", NotUtf8), (b"script=x&script=x", DuplicateField), (b"width=&width=8", DuplicateField),
        (b"script=x&%73cript=x", DuplicateField), (b"scrip=x", UnknownField), (b"=x", UnknownField),
        (b'{"script": "x"}', MalformedBody), (b"&" * 1_000_000, MalformedBody),
        (b"formats=png&" * (MAX_FIELDS + 1), MalformedBody), (b"script=" + b"%41" * (MAX_TEXT_BYTES + 1), InvalidField),
    ],
)  # fmt: skip
def test_a_bad_urlencoded_body_is_refused(body: bytes, error: type[ServiceError]) -> None:
    with pytest.raises(error) as caught:
        of_urlencoded(body)
    assert len(caught.value.detail) < 600


@pytest.mark.parametrize("body", [f'{{"fit": "{"x" * 1001}"}}', f'{{"formats": {["png"] * 300}}}'.replace("'", '"')])
def test_a_short_field_is_bounded(body: str) -> None:
    with pytest.raises(InvalidField, match=f"at most {MAX_SHORT_BYTES} bytes"):
        of_json(body)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("scrpt", "script"), ("aspectRatio", "aspect_ratio"), ("COUNT", "count"), ("format", "formats"), ("img", "image"),
     ("jpeg-quality", "jpeg_quality"), ("heigth", "height"), ("size", "image_size")],
)  # fmt: skip
def test_an_unknown_field_is_told_the_nearest_known_one(name: str, nearest: str) -> None:
    said = f"'{name}', the nearest known one is {nearest};"
    with pytest.raises(UnknownField, match=said):
        of_json(f'{{"{name}": {{}}}}')
    with pytest.raises(UnknownField, match=said):
        of_urlencoded(f"{name}=1".encode())


@pytest.mark.parametrize("name", ["", "🖼", "x" * 1_000_000, "\\u202e"])
def test_any_unknown_name_is_answered_shortly(name: str) -> None:
    with pytest.raises(UnknownField, match="the nearest known one is ") as caught:
        of_json(f'{{"{name}": 1}}')
    assert len(caught.value.detail) < 500


@given(st.text(min_size=1, max_size=40), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_text_is_the_same_in_every_spelling(text: str, plus: bool) -> None:
    escaped = urlencode({"script": text}) if plus else f"script={quote(text, safe='')}"
    assert of_urlencoded(escaped.encode()) == of_json(json.dumps({"script": text})) == {"script": text}
