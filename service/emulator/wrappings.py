"""The forms in which encoders, proxies and compatible servers send a reply; each carries its picture."""

import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from service.emulator.wire import Json, dump

LINE = 76

Respell = Callable[[str], str]
Edit = Callable[[Json], Json]
Frame = Callable[[Any], bytes]
Encode = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Wrapping:
    """Steps applied to a reply, in order: its base64, fields, field names, JSON, bytes, HTTP status and headers."""

    base64: tuple[Respell, ...] = ()
    edits: tuple[Edit, ...] = ()
    snake_case: bool = False
    frame: Frame = dump
    encode: Encode = bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def wrap(self, body: Json) -> bytes:
        for part in _parts(body):
            for respell in self.base64:
                if "inlineData" in part:
                    part["inlineData"]["data"] = respell(part["inlineData"]["data"])
        for edit in self.edits:
            body = edit(body)
        return self.encode(self.frame(_snake_case(body) if self.snake_case else body))


def _parts(body: Json) -> Iterator[Json]:
    for candidate in body["candidates"]:
        yield from candidate["content"]["parts"]


def unpadded(data: str) -> str:
    return data.rstrip("=")


def url_safe(data: str) -> str:
    head, comma, data = data.rpartition(",")
    return head + comma + data.replace("+", "-").replace("/", "_")


def lines(end: str) -> Respell:
    return lambda data: end.join(data[at : at + LINE] for at in range(0, len(data), LINE))


def data_uri(data: str) -> str:
    return f"data:image/png;base64,{data}"


def spaced(data: str) -> str:
    return f" \t{data}\r\n"


def _snake_case(value: object) -> object:
    if isinstance(value, dict):
        return {re.sub("([A-Z])", r"_\1", name).lower(): _snake_case(each) for name, each in value.items()}
    return [_snake_case(each) for each in value] if isinstance(value, list) else value


def with_error_null(body: Json) -> Json:
    return {"error": None, **body}


def with_reasons(*reasons: object) -> Edit:
    """Make the finishReason of each candidate a list."""

    def edit(body: Json) -> Json:
        for candidate in body["candidates"]:
            candidate["finishReason"] = list(reasons)
        return body

    return edit


def without_lists(body: Json) -> Json:
    """Replace each list of one object by the object."""
    [candidate] = body["candidates"]
    parts = candidate["content"]["parts"]
    content = {"parts": parts[0] if len(parts) == 1 else parts}
    return {**body, "candidates": {**candidate, "content": content}}


def as_text(body: Json) -> Json:
    """Move pictures into texts as data URIs, like chat servers."""
    for part in _parts(body):
        if inline := part.pop("inlineData", None):
            part["text"] = f"Here it is: ![]({data_uri(inline['data'])}) Enjoy."
    return body


def array(body: Json) -> bytes:
    return dump([body])


def chunks(body: Json) -> list[Json]:
    """The reply in chunks, as it is streamed: a text, the parts, then the usage."""
    usage = {"usageMetadata": body.pop("usageMetadata", {})}
    greeting = {"candidates": [{"content": {"parts": [{"text": "Here it comes: "}]}, "index": 0}]}
    return [greeting, body, usage | {"candidates": [{"finishReason": "STOP", "index": 0}]}]


def chunk_array(body: Json) -> bytes:
    return json.dumps(chunks(body), indent=1).encode()


def json_lines(body: Json) -> bytes:
    return b"\r\n".join(map(dump, chunks(body)))


def concatenated(body: Json) -> bytes:
    return b"".join(map(dump, chunks(body)))


def events(body: Json) -> bytes:
    framed = [b"event: message\r\nid: 7\r\ndata: " + dump(piece) + b"\r\n\r\n" for piece in chunks(body)]
    return b": hello\r\n\r\n" + b"".join(framed) + b"data: [DONE]\r\n\r\n"


def split_events(body: Json) -> bytes:
    """Each value split over several `data:` lines; no blank line at the end."""
    texts = [json.dumps(piece, indent=1).encode() for piece in chunks(body)]
    return b"\n\n".join(b"\n".join(b"data:" + line for line in text.split(b"\n")) for text in texts)


def html_safe(body: Json) -> bytes:
    """JSON with the escapes of .NET, Gson and PHP."""
    text = json.dumps(body, indent=2)
    return text.replace("/", "\\/").replace("+", "\\u002B").replace("=", "\\u003d").encode()


def raw_line_ends(body: Json) -> bytes:
    """Line ends in strings without escapes, which JSON forbids."""
    return dump(body).replace(b"\\r", b"\r").replace(b"\\n", b"\n")


def with_bom(data: bytes) -> bytes:
    """With a byte order mark."""
    return b"\xef\xbb\xbf" + data


def utf16(data: bytes) -> bytes:
    return data.decode().encode("utf-16")


def gzip(data: bytes) -> bytes:
    encoder = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return encoder.compress(data) + encoder.flush()


def bare_deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    return encoder.compress(data) + encoder.flush()


GZIP = {"Content-Encoding": "gzip"}

WRAPPINGS: dict[str, Wrapping] = {
    "unpadded": Wrapping(base64=(unpadded,)),
    "url_safe": Wrapping(base64=(url_safe,)),
    "url_safe_unpadded": Wrapping(base64=(url_safe, unpadded)),
    "wrapped_lines": Wrapping(base64=(lines("\n"),)),
    "wrapped_lines_crlf": Wrapping(base64=(lines("\r\n"),), frame=raw_line_ends),
    "data_uri": Wrapping(base64=(data_uri,)),
    "data_uri_in_text": Wrapping(edits=(as_text,)),
    "spaced": Wrapping(base64=(spaced,)),
    "snake_case": Wrapping(snake_case=True),
    "byte_order_mark": Wrapping(encode=with_bom),
    "utf16": Wrapping(encode=utf16),
    "array_of_one": Wrapping(frame=array),
    "chunk_array": Wrapping(frame=chunk_array),
    "json_lines": Wrapping(frame=json_lines),
    "concatenated": Wrapping(frame=concatenated),
    "events": Wrapping(frame=events),
    "split_events": Wrapping(frame=split_events),
    "html_safe": Wrapping(frame=html_safe),
    "error_null": Wrapping(edits=(with_error_null,)),
    "reasons": Wrapping(edits=(with_reasons("STOP", 1),)),
    "without_lists": Wrapping(edits=(without_lists,)),
    "gzip": Wrapping(encode=gzip, headers=GZIP),
    "gzip_undeclared": Wrapping(encode=gzip),
    "gzip_that_is_none": Wrapping(headers=GZIP),
    "deflate": Wrapping(encode=lambda data: zlib.compress(data, 1), headers={"Content-Encoding": "deflate"}),
    "deflate_bare": Wrapping(encode=bare_deflate, headers={"Content-Encoding": "deflate"}),
    "unknown_encoding": Wrapping(headers={"Content-Encoding": "aws-chunked"}),
    **{f"status_{status}": Wrapping(status=status) for status in (201, 202, 203, 205, 206, 226, 299)},
    "all_at_once": Wrapping(
        base64=(url_safe, unpadded, lines("\r\n"), data_uri),
        edits=(with_reasons("STOP"), with_error_null),
        snake_case=True,
        frame=split_events,
        encode=lambda data: gzip(with_bom(data)),
        status=206,
        headers=GZIP,
    ),
}
