"""A reply is read in any mix of base64 variants, spellings, framings and encodings."""

import base64
import copy
import random
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.emulator import wrappings
from service.emulator.wire import dump
from service.emulator.wrappings import Wrapping
from service.gemini.coding import ContentDecoder
from service.gemini.reply import Reply, read_reply, try_reply
from service.gemini.wire import LONG

USAGE = {"promptTokenCount": 9, "candidatesTokenCount": 1120, "totalTokenCount": 1129}
HEAD = b"\x89PNG\r\n\x1a\n"

# Applied in this order, because each accepts the result of those before; the edits likewise.
BASE64 = (
    (wrappings.unpadded,),
    (wrappings.url_safe,),
    (wrappings.lines("\n"), wrappings.lines("\r\n")),
    (wrappings.spaced,),
    (wrappings.data_uri,),
)
EDITS = (
    wrappings.as_text,
    wrappings.with_reasons("STOP", ["MAX_TOKENS"], 7),
    wrappings.without_lists,
    wrappings.with_error_null,
)
FRAMES = (
    dump,
    wrappings.array,
    wrappings.chunk_array,
    wrappings.json_lines,
    wrappings.concatenated,
    wrappings.events,
    wrappings.split_events,
    wrappings.html_safe,
    wrappings.raw_line_ends,
)
ENCODINGS = (
    bytes,
    wrappings.with_bom,
    wrappings.utf16,
    wrappings.gzip,
    lambda data: wrappings.gzip(wrappings.with_bom(data)),
)

pictures = st.one_of(
    st.binary(max_size=100),
    st.integers(LONG, 3 * LONG).map(lambda size: random.Random(size).randbytes(size)),
).map(lambda data: HEAD + data)


@st.composite
def mixes(draw: st.DrawFn) -> Wrapping:
    return Wrapping(
        base64=tuple(draw(st.sampled_from(choice)) for choice in BASE64 if draw(st.booleans())),
        edits=tuple(edit for edit in EDITS if draw(st.booleans())),
        snake_case=draw(st.booleans()),
        frame=draw(st.sampled_from(FRAMES)),
        encode=draw(st.sampled_from(ENCODINGS)),
    )


def answer(picture: bytes, text: bool, draft: bool) -> dict[str, Any]:
    def part(data: bytes, **more: Any) -> dict[str, Any]:
        return {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(data).decode()}, **more}

    parts = [part(HEAD + b"a draft", thought=True)] * draft + [{"text": 'See "data: {}" \\'}] * text + [part(picture)]
    candidate = {"content": {"parts": parts, "role": "model"}, "finishReason": "STOP", "index": 0}
    return {"candidates": [candidate], "usageMetadata": USAGE}


def received(body: bytes, step: int) -> bytes:
    decoder, pieces = ContentDecoder(""), []
    for at in range(0, len(body), step):
        decoder.feed(body[at : at + step])
        while piece := decoder.piece():
            pieces.append(piece)
    return b"".join([*pieces, *decoder.end()])


@settings(deadline=None)
@given(mixes(), pictures, st.booleans(), st.booleans(), st.integers(1, 5000))
@example(Wrapping(), HEAD, True, True, 1)
def test_any_mix_of_wrappings_is_read(mix: Wrapping, picture: bytes, text: bool, draft: bool, step: int) -> None:
    body = mix.wrap(copy.deepcopy(answer(picture, text, draft)))
    reply = read_reply(bytearray(received(body, step)))
    # Without pytest's comparison, which would print megabytes.
    assert bool(reply.picture == picture)
    assert reply.usage == USAGE


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400), mixes())
def test_no_damaged_body_raises_or_is_unbilled(noise: bytes, at: int, mix: Wrapping) -> None:
    body = mix.wrap(answer(HEAD, True, True))
    for broken in (noise, body[:at] + noise + body[at:], body[:at]):
        outcome = try_reply(received(broken, 1000))
        assert isinstance(outcome, Reply) or outcome.billed is not False
