"""Malformed bodies are refused as problem+json, bounded while they are read, and leave nothing behind."""

import asyncio
import errno
import fcntl
import gzip
import threading
from collections.abc import AsyncIterator

import pytest
from aiofiles.threadpool.binary import AsyncBufferedIOBase

from service.handlers.multipart import WRITE_BYTES
from service.server.keys import ADMISSION
from service.settings import MIB
from tests.conftest import Serve
from tests.helpers import (
    BOUNDARY,
    CONTENT_TYPE,
    SCRIPT,
    Part,
    QuickEmulator,
    Running,
    assert_problem,
    form,
    open_descriptors,
    picture_bytes,
    png_header,
    read_answer,
    until,
    upload,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROUTES = ("/api/thumbnails", "/api/exports")
GOOD = form(("script", SCRIPT))
EDGE = f"--{BOUNDARY}".encode()
PICTURE = picture_bytes()
SMALL = 100_000  # MAX_UPLOAD_BYTES of the tests that meet a limit
SMALL_BODY = 2 * SMALL + MIB


def head(path: str, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: localhost", f"Content-Type: {CONTENT_TYPE}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "body",
    {
        "empty": b"",
        "no boundary in it": b"script=hello",
        "another boundary": GOOD.replace(BOUNDARY.encode(), b"----another"),
        "no last boundary": GOOD.replace(b"--\r\n", b""),
        "only the first boundary": EDGE + b"\r\n",
        "cut in a header": EDGE + b"\r\nContent-Dispos",
        "cut in the data": GOOD[:-60],
        "a line feed alone": GOOD.replace(b"\r\n", b"\n"),
        "no disposition": EDGE + b"\r\nContent-Type: text/plain\r\n\r\nhello\r\n" + EDGE + b"--\r\n",
        "not form-data": GOOD.replace(b"form-data", b"attachment"),
        "a header without colon": EDGE + b"\r\nContent-Disposition\r\n\r\nx\r\n" + EDGE + b"--\r\n",
        "NUL in a header": form(Part("script", b"x", headers=("X-Odd: a\0b",))),
        "NUL in a name": form(Part("scr\0ipt", b"x")),
        "junk before the boundary": b"junk" + GOOD,
        "junk after the boundary": GOOD.replace(EDGE + b"\r\n", EDGE + b"junk\r\n", 1),
        "a header of 100 KB": form(Part("script", b"x", headers=("X-Long: " + "x" * 100_000,))),
        "1,000 headers": form(Part("script", b"x", headers=("X-Many: 1",) * 1000)),
        "65 parts": form(*[Part(f"p{number}", b"") for number in range(65)]),
        "20,000 parts": form(*[Part("x", b"")] * 20_000),
        "20,000 scripts": form(*[Part("script", b"x")] * 20_000),
    }.items(),
    ids=lambda item: item[0],
)
async def test_a_malformed_body_is_refused(service: Running, path: str, body: tuple[str, bytes]) -> None:
    with service.nothing_spent_or_left():
        answer = await service.post_body(path, body[1])
    assert answer.status in (400, 422), answer.body
    known = {"malformed_body", "duplicate_field"} if answer.status == 400 else {"unknown_field"}
    assert answer.json["code"] in known
    assert_problem(answer, answer.status, answer.json["code"])


async def test_a_malformed_header_is_described(service: Running) -> None:
    answer = await service.post("/api/exports", Part("image", PICTURE, headers=("caf\udce9: x",)))
    assert_problem(answer, 400, "malformed_body", "Invalid segment header name")
    assert "Error(" not in answer.json["detail"]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("query", ["width=8", "script=x", "formats", "%ff=1", "x" * 200, "=", "&"])
async def test_query_parameters_are_refused_before_the_body(service: Running, path: str, query: str) -> None:
    with service.nothing_spent_or_left():
        answer = await service.raw(head(f"{path}?{query}", "Expect: 100-continue", "Content-Length: 1000"))
    assert_problem(answer, 422, "unknown_field", "query")
    assert len(answer.json["detail"]) < 200


async def test_an_empty_query_is_none(service: Running) -> None:
    answer = await service.exports(upload(PICTURE), ("formats", "png"))
    assert (await service.post("/api/exports?", upload(PICTURE), ("formats", "png"))).status == answer.status == 200


async def test_an_unknown_field_is_quoted_as_it_was_sent(service: Running) -> None:
    answer = await service.thumbnails(("größe", "1"))
    assert_problem(answer, 422, "unknown_field", "größe")


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        f"multipart/form-data; boundary={'x' * 201}",
        "multipart/form-data; boundary=b\xe4h",
        "multipart/form-data; charset=utf-8",
    ],
)
async def test_no_usable_boundary_is_400(service: Running, path: str, content_type: str) -> None:
    with service.nothing_spent_or_left():
        answer = await service.post_body(path, GOOD, content_type)
    assert_problem(answer, 400, "malformed_body")


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/json", "application/problem+json", "text/plain", "multipart/mixed; boundary=x", "image/png",
     "multipart", ";;;", "multipart/form-data-not; boundary=x"],
)  # fmt: skip
async def test_a_body_that_is_not_a_form_is_415(service: Running, path: str, content_type: str | None) -> None:
    with service.nothing_spent_or_left():
        answer = await service.post_body(path, b'{"script": "hello"}', content_type)
    assert_problem(answer, 415, "unsupported_media_type", "multipart/form-data")


@pytest.mark.parametrize(
    "content_type",
    [f'multipart/form-data; boundary="{BOUNDARY}"', f"Multipart/Form-Data; charset=utf-8; BOUNDARY={BOUNDARY}"],
)
async def test_the_ways_to_write_a_content_type(service: Running, content_type: str) -> None:
    answer = await service.post_body("/api/thumbnails", GOOD, content_type)
    assert answer.status == 200, answer.body


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "x-unknown", "gzip, identity", "aws-chunked", "identity"]
)
async def test_an_encoded_body_is_415(service: Running, path: str, encoding: str) -> None:
    body = gzip.compress(GOOD)
    request = head(path, f"Content-Encoding: {encoding}", f"Content-Length: {len(body)}") + body
    with service.nothing_spent_or_left():
        answer = await service.raw(request)
    assert_problem(answer, 415, "unsupported_encoding", "Content-Encoding")


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("disposition", ["form-data", 'form-data; filename="a.png"'])
async def test_a_part_without_a_name_is_malformed(service: Running, path: str, disposition: str) -> None:
    body = EDGE + f"\r\nContent-Disposition: {disposition}\r\n\r\nhello\r\n".encode() + EDGE + b"--\r\n"
    with service.nothing_spent_or_left():
        answer = await service.post_body(path, body)
    assert_problem(answer, 400, "malformed_body", "name")


async def test_a_gzip_bomb_is_not_unpacked(service: Running) -> None:
    body = gzip.compress(bytes(50 * MIB))
    with service.nothing_spent_or_left():
        answer = await service.post_body("/api/exports", body, headers={"Content-Encoding": "gzip"})
    assert_problem(answer, 415, "unsupported_encoding")


@pytest.mark.parametrize("header", ["Content-Transfer-Encoding: base64", "Content-Transfer-Encoding: Quoted-Printable",
                                    "Content-Encoding: gzip", "Content-Transfer-Encoding: x-own"])  # fmt: skip
async def test_an_encoded_part_is_415(service: Running, header: str) -> None:
    with service.nothing_spent_or_left():
        answer = await service.post("/api/thumbnails", Part("script", b"aGVsbG8=", headers=(header,)))
    assert_problem(answer, 415, "unsupported_encoding", "script", "as they are")


@pytest.mark.parametrize("transfer", ["7bit", "8bit", "binary", "Binary"])
async def test_a_part_with_an_identity_transfer_encoding_is_accepted(service: Running, transfer: str) -> None:
    header = f"Content-Transfer-Encoding: {transfer}"
    answer = await service.exports(Part("image", picture_bytes(), "a.png", (header,)))
    assert answer.status == 200, answer.body


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("name", ["script", "image", "width"])
async def test_a_doubled_field_is_400(service: Running, path: str, name: str) -> None:
    part = upload(picture_bytes()) if name == "image" else Part(name, b"8")
    if (path, name) == ("/api/exports", "script"):
        part = Part("base", picture_bytes(), "base.png")
    with service.nothing_spent_or_left():
        answer = await service.post(path, part, part)
    assert_problem(answer, 400, "duplicate_field", part.name, "twice")


async def test_an_empty_field_counts_for_doubles_too(service: Running) -> None:
    with service.nothing_spent_or_left():
        answer = await service.thumbnails(("width", ""), ("width", "8"))
    assert_problem(answer, 400, "duplicate_field", "width")


@pytest.mark.parametrize("data", [b"\xff", b"caf\xe9", b"\xed\xa0\x80", b"ok\xc3"])
@pytest.mark.parametrize("name", ["script", "fit"])
async def test_text_that_is_not_utf8_is_400(service: Running, name: str, data: bytes) -> None:
    fields = [Part(name, data)] if name == "script" else [Part("script", b"x"), Part(name, data)]
    with service.nothing_spent_or_left():
        answer = await service.post("/api/thumbnails", *fields)
    assert_problem(answer, 400, "not_utf8", name)


async def test_a_script_sent_as_a_file_is_a_script(service: Running) -> None:
    part = Part("script", "Grüße".encode(), "script.txt", ("Content-Type: text/plain; charset=utf-8",))
    answer = await service.post("/api/thumbnails", part, ("formats", "jpeg"))
    assert answer.status == 200, answer.body
    assert "Grüße" in answer.json["variations"][0]["metadata"]["prompt"]


async def test_a_picture_without_a_file_name_is_a_picture(service: Running) -> None:
    answer = await service.exports(Part("image", picture_bytes()))
    assert answer.status == 200, answer.body


@pytest.mark.parametrize("filename", ["../../evil.png", "a\0b.png", "x" * 3000, "ü.png", "C:\\x.png", "%00"])
async def test_a_file_name_is_not_used(service: Running, filename: str) -> None:
    before = service.area("uploads")
    answer = await service.exports(Part("image", picture_bytes(), filename))
    assert answer.status in (200, 400), answer.body
    if answer.status == 200:
        [name] = set(service.area("uploads")) - {*before}
        assert name == f"{answer.json['request_id']}_image.png"


NAMES = {
    "latin-1": "café.png", "cp1251": "картинка.png", "koi8-r": "картинка.png", "shift_jis": "ソ画像ソ",
    "euc_jp": "画像.png", "iso2022_jp": "あい画像.png", "gb18030": "图片.png", "big5": "許功蓋",
    "utf-16-le": "图a.png", "utf-8": "🖼.png", "cp437": "é\u2592.png",
}  # fmt: skip


@pytest.mark.parametrize("encoding", NAMES)
@pytest.mark.parametrize("path", ROUTES)
async def test_a_file_name_may_be_in_any_encoding(service: Running, path: str, encoding: str) -> None:
    filename = NAMES[encoding].encode(encoding).decode("utf-8", "surrogateescape")
    answer = await service.post(path, Part("image", PICTURE, filename), *[("script", "x")] * ("thumb" in path))
    assert answer.status == 200, answer.body


@pytest.mark.parametrize("name", ["image", "base"])
@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 415, "unsupported_image"),
        (b"just text, named .png", 415, "unsupported_image"),
        (b"GIF89b" + bytes(100), 415, "unsupported_image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", 415, "unsupported_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_image"),
        (b"RIFF\x10\0\0\0WAVEfmt ", 415, "unsupported_image"),
        (b"\x89PNG", 415, "unsupported_image"),
        (picture_bytes((300, 300))[:-40], 422, "undecodable"),
        (picture_bytes((300, 300), kind="JPEG")[:-300], 422, "undecodable"),
        (picture_bytes((300, 300), kind="WEBP", lossless=True)[:-20], 422, "undecodable"),
        (b"GIF89a" + bytes(100), 422, "undecodable"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), 422, "undecodable"),
        (b"\xff\xd8\xff\xe0" + bytes(100), 422, "undecodable"),
        (png_header(50_000, 50_000), 422, "too_many_pixels"),
        (png_header(0, 10), 422, "undecodable"),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_a_bad_picture_is_refused_before_any_call(
    service: Running, name: str, data: bytes, status: int, code: str
) -> None:
    bad = upload(data, name)
    fields = [bad] if name == "image" else [upload(picture_bytes()), bad]
    with service.nothing_spent_or_left():
        answer = await service.exports(*fields)
        assert_problem(answer, status, code)
        if name == "image":
            assert_problem(await service.thumbnails(bad), status, code)


async def test_a_missing_image_is_422(service: Running) -> None:
    with service.nothing_spent_or_left():
        answer = await service.exports(upload(picture_bytes(), "base"))
        empty = await service.exports(upload(b"", filename=""))
    assert_problem(answer, 422, "missing_field", "image is required")
    assert_problem(empty, 422, "missing_field", "image is required")


async def test_a_file_over_max_upload_bytes_is_413(serve: Serve) -> None:
    service = await serve(max_upload_bytes=SMALL)
    picture = picture_bytes()
    fits = upload(picture + bytes(SMALL - len(picture)))
    assert (await service.exports(fits)).status == 200
    with service.nothing_spent_or_left():
        answer = await service.thumbnails(upload(picture + bytes(SMALL - len(picture) + 1)))
    assert_problem(answer, 413, "too_large", "image", str(SMALL))


@pytest.mark.parametrize("path", ROUTES)
async def test_a_body_over_its_limit_is_413_by_its_length_alone(serve: Serve, path: str) -> None:
    service = await serve(max_upload_bytes=SMALL)
    with service.nothing_spent_or_left():
        answer = await service.raw(head(path, f"Content-Length: {SMALL_BODY + 1}"))
    assert_problem(answer, 413, "too_large", str(SMALL_BODY))


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("fill", ["preamble", "epilogue", "image"])
async def test_a_body_without_a_length_is_counted_as_it_comes(serve: Serve, path: str, fill: str) -> None:
    service = await serve(max_upload_bytes=SMALL)

    async def endless() -> AsyncIterator[bytes]:
        if fill == "image":
            yield upload(picture_bytes()).encode()[:-2]
        elif fill == "epilogue":
            yield GOOD if path == "/api/thumbnails" else form(upload(picture_bytes()))
        for _ in range(2 * SMALL_BODY // 50_000):
            yield bytes(50_000)

    with service.nothing_spent_or_left():
        answer = await service.post_body(path, endless())
    assert_problem(answer, 413, "too_large")


async def test_48_megabytes_before_the_first_boundary_are_413(service: Running) -> None:
    async def preamble() -> AsyncIterator[bytes]:
        for _ in range(48):
            yield bytes(1_000_000)
        yield GOOD

    with service.nothing_spent_or_left():
        answer = await service.post_body("/api/thumbnails", preamble())
    assert_problem(answer, 413, "too_large")


async def test_a_short_preamble_and_an_epilogue_are_read_over(service: Running) -> None:
    answer = await service.post_body("/api/thumbnails", b"preamble\r\n" + GOOD + b"epilogue")
    assert answer.status == 200, answer.body


async def test_a_body_of_single_bytes_is_read(service: Running) -> None:
    body = form(upload(picture_bytes((8, 8))), ("formats", "png"))
    answer = await service.raw(
        head("/api/exports", "Transfer-Encoding: chunked") + chunked(*(body[at : at + 1] for at in range(len(body))))
    )
    assert answer.status == 200, answer.body


@pytest.mark.parametrize(
    "body",
    [b"zz\r\n", b"-5\r\nhello\r\n", b"5\r\nhelloXX0\r\n\r\n", b"fffffffffffffffffffff\r\n"],
)
async def test_a_broken_transfer_encoding_is_400(service: Running, body: bytes) -> None:
    with service.nothing_spent_or_left():
        answer = await service.raw(head("/api/thumbnails", "Transfer-Encoding: chunked") + body)
    assert_problem(answer, 400, "malformed_request")


async def test_a_transfer_encoding_that_breaks_on_the_way_is_a_body_that_stopped(serve: Serve) -> None:
    service = await serve(upload_stall_seconds=0.3)
    start = upload(PICTURE + bytes(WRITE_BYTES)).encode()
    with service.nothing_spent_or_left():
        async with service.connected() as (reader, writer):
            writer.write(head("/api/thumbnails", "Transfer-Encoding: chunked") + b"%x\r\n%s\r\n" % (len(start), start))
            await until(lambda: service.area("uploads"))
            writer.write(b"not a size\r\n")
            assert_problem(await read_answer(reader), 408, "body_timeout")


@pytest.mark.parametrize("path", ROUTES)
async def test_a_body_that_stops_coming_is_408(serve: Serve, path: str) -> None:
    service = await serve(upload_stall_seconds=0.2)
    with service.nothing_spent_or_left():
        answer = await service.raw(head(path, "Content-Length: 1000") + EDGE + b"\r\n")
        upload_started = upload(PICTURE + bytes(WRITE_BYTES)).encode()
        in_a_picture = await service.raw(head(path, "Content-Length: 100000") + upload_started)
    body = assert_problem(answer, 408, "body_timeout", "0.2 seconds")
    assert body["retryable"] is True
    assert_problem(in_a_picture, 408, "body_timeout")


async def test_a_client_that_disconnects_during_an_upload_leaves_nothing(service: Running) -> None:
    files = service.files()
    async with service.connected() as (_, writer):
        writer.write(head("/api/thumbnails", "Content-Length: 100000") + upload(PICTURE + bytes(WRITE_BYTES)).encode())
        await until(lambda: service.files() != files)
    await until(lambda: service.files() == files)


async def test_continue_is_said_only_to_those_let_in(service: Running, serve: Serve) -> None:
    body = form(("script", SCRIPT), ("formats", "jpeg"))
    expecting = head("/api/thumbnails", "Expect: 100-continue", f"Content-Length: {len(body)}")
    async with service.connected() as (reader, writer):
        writer.write(expecting)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await read_answer(reader)).status == 200
    guarded = await serve(QuickEmulator(), api_keys="k" * 16)
    assert_problem(await guarded.raw(expecting), 401, "unauthorized")
    too_long = head("/api/thumbnails", "Expect: 100-continue", f"Content-Length: {10**9}")
    assert_problem(await service.raw(too_long), 413, "too_large")


@pytest.mark.parametrize(
    "target", ["POST /api/thumbnails", "POST /api/exports", "GET /healthz", "GET /static/output/x", "GET /nowhere"]
)
async def test_an_unknown_expectation_is_417(service: Running, target: str) -> None:
    request = f"{target} HTTP/1.1\r\nHost: localhost\r\nExpect: the-moon\r\nContent-Length: 0\r\n\r\n".encode()
    assert_problem(await service.raw(request), 417, "expectation_failed", "100-continue")


async def test_the_connection_serves_on_after_a_refusal(service: Running) -> None:
    async with service.connected() as (reader, writer):
        for _ in range(3):
            body = form(("script", ""))
            writer.write(head("/api/thumbnails", f"Content-Length: {len(body)}") + body)
            assert (await read_answer(reader)).status == 422
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await read_answer(reader)).status == 200


async def test_uploads_that_were_taken_stay_for_their_retention(service: Running) -> None:
    answer = await service.exports(upload(picture_bytes()), upload(picture_bytes(kind="JPEG"), "base"))
    request_id = answer.json["request_id"]
    assert {f"{request_id}_image.png", f"{request_id}_base.jpg"} <= {*service.area("uploads")}


async def test_two_requests_at_once_do_not_mix(service: Running) -> None:
    answers = await asyncio.gather(
        *(service.exports(upload(picture_bytes((10 + at, 10))), ("formats", "png")) for at in range(8))
    )
    assert [answer.json["exports"]["png"]["width"] for answer in answers] == [10 + at for at in range(8)]


@pytest.mark.parametrize("step", ["write", "close"])
@pytest.mark.parametrize(("number", "status", "code"), [
    (errno.ENOSPC, 507, "storage_full"), (errno.EDQUOT, 507, "storage_full"), (errno.EIO, 503, "storage_unavailable"),
])  # fmt: skip
async def test_a_disk_that_refuses_an_upload_is_named(
    service: Running, monkeypatch: pytest.MonkeyPatch, step: str, number: int, status: int, code: str
) -> None:
    close = AsyncBufferedIOBase.close

    async def refuse(self: AsyncBufferedIOBase, *args: object) -> None:
        if step == "close":
            await close(self)
        raise OSError(number, "refused", "/a/path/of/the/machine")

    monkeypatch.setattr(AsyncBufferedIOBase, step, refuse)
    with service.nothing_spent_or_left():
        for answer in (await service.thumbnails(upload(PICTURE)), await service.exports(upload(PICTURE))):
            assert_problem(answer, status, code, "uploads/")
            assert b"machine" not in answer.body


async def test_an_upload_that_is_cancelled_while_its_file_is_made_leaves_no_descriptor_and_no_file(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, went_away, flock = threading.Event(), threading.Event(), fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        begun.set()
        went_away.wait(20)
        flock(descriptor, operation)

    body = form(("script", SCRIPT), upload(PICTURE))
    uploads = service.area("uploads")
    await service.get("/readyz")
    before = open_descriptors()
    async with service.connected() as (_, writer):
        monkeypatch.setattr(fcntl, "flock", late)
        writer.write(head("/api/thumbnails", f"Content-Length: {len(body) + 1}") + body)
        assert await asyncio.to_thread(begun.wait, 20)
        writer.transport.abort()
        await until(lambda: not service.app[ADMISSION].inside["thumbnails"])
        went_away.set()
    await until(lambda: open_descriptors() <= before and service.area("uploads") == uploads)
