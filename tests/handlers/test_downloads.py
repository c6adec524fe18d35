"""Downloads: static or signed links, never both; no name leads out of output/; ranges as RFC 9110 has them."""

import asyncio
import gzip
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio
from blockbuster import BlockBuster

from service.retention import sweep_area
from service.server.keys import ADMISSION, EXPORTS
from service.settings import MIB, Settings
from service.urls import MAX_LIFE_SECONDS, Links
from tests.conftest import Serve
from tests.helpers import Answer, Running, assert_problem, picture_bytes, read_answer, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

DATA = picture_bytes((40, 30)) + bytes(range(256)) * 4
SECRET = "the first secret is the one that signs"
OLD_SECRET = "the old secret which still verifies"


def put(service: Running, suffix: str = ".png", data: bytes = DATA) -> str:
    """An export of the given bytes; returns its name."""
    name = f"export_{secrets.token_hex(16)}{suffix}"
    Path(service.settings.area("output"), name).write_bytes(data)
    return name


def links(settings: Settings, secret: str = SECRET, now: float | None = None, **changes: object) -> Links:
    changed = settings.model_copy(update=changes)
    signer = Links(Settings(sign_urls=True, signing_secret=secret, url_signature_expiry=changed.url_signature_expiry))
    if now is not None:
        signer._now = lambda: now
    return signer


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def _signed(serve_all: Serve) -> Running:
    return await serve_all(sign_urls=True, signing_secret=f"{SECRET},{OLD_SECRET}")


@pytest.fixture
def signed(_signed: Running, unblocked: BlockBuster) -> Running:
    return _signed


@pytest.mark.parametrize(
    ("suffix", "mime"),
    [(".png", "image/png"), (".jpg", "image/jpeg"), (".webp", "image/webp"), (".avif", "image/avif")],
)
async def test_a_static_download(service: Running, suffix: str, mime: str) -> None:
    name = put(service, suffix)
    got = await service.get(f"/static/output/{name}")
    assert (got.status, got.body) == (200, DATA)
    assert got.headers["Content-Type"] == mime
    assert got.headers["Content-Length"] == str(len(DATA))
    assert got.headers["Content-Disposition"] == f'inline; filename="{name}"'
    assert got.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert got.headers["Accept-Ranges"] == "bytes"
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert got.headers["ETag"].startswith('"')
    assert "Content-Encoding" not in got.headers
    assert got.headers["X-Request-Id"].startswith("req_")


async def test_a_head_has_the_headers_of_a_get(service: Running) -> None:
    path = f"/static/output/{put(service)}"
    got, head = await service.get(path), await service.ask("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    for name in ("Content-Length", "Content-Type", "ETag", "Cache-Control", "Accept-Ranges", "Content-Disposition"):
        assert head.headers[name] == got.headers[name]


async def test_a_gzip_sibling_is_never_served(service: Running) -> None:
    name = put(service)
    Path(service.settings.area("output"), f"{name}.gz").write_bytes(gzip.compress(b"other"))
    got = await service.get(f"/static/output/{name}", Accept_Encoding="gzip")
    assert got.body == DATA
    assert_problem(await service.get(f"/static/output/{name}.gz"), 404, "not_found")
    Path(service.settings.area("output"), f"{name}.gz").unlink()


async def test_only_one_kind_of_link_works(service: Running, signed: Running) -> None:
    name = put(service)
    assert_problem(await service.get(links(service.settings).build(name)), 404, "not_found")
    name = put(signed)
    assert_problem(await signed.get(f"/static/output/{name}"), 404, "not_found")
    assert (await signed.get(signed.app[EXPORTS].links.build(name))).body == DATA


TRAVERSALS = [
    "..%2f..%2fsetup.cfg",
    "%2e%2e%2f%2e%2e%2fsetup.cfg",
    "%2Fetc%2Fpasswd",
    "..%5c..%5csetup.cfg",
    "%252e%252e%252fpasswd",
    "..%c0%af..%c0%afetc%c0%afpasswd",
    "%00",
    "{name}%00",
    "{name}%00.png",
    "{name}%0a",
    "{name}.",
    "{name}/",
    "{name}%2f",
    "{name}%20",
    ".%2f{name}",
    "..%2foutput%2f{name}",
    "%ff{name}",
    "%ed%a0%80",
    ".gitkeep",
    "{upper}",
    "export_.png",
    "export_{short}.png",
    "export_{short}zz.png",
    "export_%F0%9F%98%80.png",
    "x" * 4000,
]


@pytest.mark.parametrize("spelling", TRAVERSALS)
async def test_a_name_outside_the_pattern_is_404(service: Running, spelling: str) -> None:
    name = put(service)
    wrong = spelling.format(name=name, upper=name.upper(), short=name[7:37])
    assert_problem(await service.get(f"/static/output/{wrong}"), 404, "not_found")


@pytest.mark.parametrize("path", ["/static/output/../../setup.cfg", "/static/output//etc/passwd", "/static/output/",
                                  "/static/output", "/static/../etc/passwd", "//static/output/x"])  # fmt: skip
async def test_a_path_that_climbs_is_404(service: Running, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    assert_problem(await service.raw(request), 404, "not_found")


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "socket", "dangling link"])
async def test_only_regular_files_are_served(service: Running, tmp_path: Path, kind: str) -> None:
    path = Path(service.settings.area("output"), f"export_{secrets.token_hex(16)}.png")
    outside = tmp_path / "outside.png"
    outside.write_bytes(DATA)
    listener = socket.socket(socket.AF_UNIX)
    match kind:
        case "link":
            path.symlink_to(outside)
        case "dangling link":
            path.symlink_to(tmp_path / "nothing")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "socket":
            folder = os.open(path.parent, os.O_RDONLY)
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")
            os.close(folder)
    answer = await service.get(f"/static/output/{path.name}")
    listener.close()
    assert_problem(answer, 404, "not_found")
    assert str(service.settings.storage_dir) not in answer.body.decode()
    path.rmdir() if kind == "folder" else path.unlink()


async def test_a_removed_file_is_404(service: Running) -> None:
    answer = await service.get(f"/static/output/export_{'0' * 32}.png")
    body = assert_problem(answer, 404, "not_found")
    assert body["detail"] == f"there is no output/export_{'0' * 32}.png"


# Signed links


async def test_a_signed_download(signed: Running) -> None:
    name = put(signed, ".webp")
    got = await signed.get(signed.app[EXPORTS].links.build(name))
    assert (got.status, got.body) == (200, DATA)
    kind, _, age = got.headers["Cache-Control"].rpartition("=")
    assert kind == "private, max-age"
    assert 3590 <= int(age) <= 3600
    assert got.headers["Content-Type"] == "image/webp"
    head = await signed.ask("HEAD", signed.app[EXPORTS].links.build(name))
    assert (head.status, head.body) == (200, b"")


async def test_every_changed_character_is_403(signed: Running) -> None:
    url = signed.app[EXPORTS].links.build(put(signed))
    start = url.index("export_")
    for at in range(start, len(url)):
        wrong = f"{url[:at]}{'0' if url[at] != '0' else '1'}{url[at + 1 :]}"
        answer = await signed.get(wrong)
        assert_problem(answer, 403, "bad_signature")
        assert_problem(await signed.get(url[:at] + url[at + 1 :]), 403, "bad_signature")


async def test_the_signature_of_another_file_is_403(signed: Running) -> None:
    build = signed.app[EXPORTS].links.build
    query = build(put(signed)).partition("?")[2]
    assert_problem(await signed.get(f"/api/download/{put(signed)}?{query}"), 403, "bad_signature")


async def test_signature_then_expiry_then_existence(signed: Running) -> None:
    missing = f"export_{'a' * 32}.png"
    past = links(signed.settings, now=time.time() - 5000)
    assert_problem(await signed.get(f"{past.build(missing)[:-4]}0000"), 403, "bad_signature")
    body = assert_problem(await signed.get(past.build(missing)), 410, "link_expired")
    assert "expired" in body["detail"]
    assert_problem(await signed.get(past.build(put(signed))), 410, "link_expired")
    assert_problem(await signed.get(signed.app[EXPORTS].links.build(missing)), 404, "not_found")
    assert_problem(await signed.get(f"/api/download/{missing}"), 403, "bad_signature")
    assert_problem(await signed.get("/api/download/..%2f..%2fsetup.cfg"), 403, "bad_signature")


@pytest.mark.parametrize("change", [
    "expires={e}", "signature={s}", "", "signature={s}&expires={e}&x=1", "expires={e}&expires={e}&signature={s}",
    "expires={e}&signature={s}&signature={s}", "expires={e}&signature={s}&expires=9", "Expires={e}&signature={s}",
    "expires=+{e}&signature={s}", "expires=%2B{e}&signature={s}", "expires=0{e}&signature={s}",
    "expires={e}.0&signature={s}", "expires={e}%20&signature={s}", "expires={e}%0A&signature={s}",
    "expires={e}&signature={u}", "expires={e}&signature={s}%0A", "expires={e}&signature=0x{s}",
    "expires={wide}&signature={s}", "expires={e}&signature={s};a=b", "expires=1_0&signature={s}",
    "expires=nan&signature={s}",
    "expires=inf&signature={s}", "expires=-1&signature={s}", "expires=&signature={s}", "expires={e}&signature=",
    "expires={e}&signature=%C3%A9{s}", "expires={e}&signature={s}&=",
    "expires=99999999999999999999999&signature={s}",
])  # fmt: skip
async def test_anything_but_the_two_parameters_as_signed_is_403(signed: Running, change: str) -> None:
    url = urlsplit(signed.app[EXPORTS].links.build(put(signed)))
    query = {name: value for name, [value] in parse_qs(url.query).items()}
    wide = "".join(f"%EF%BC%{0x90 + int(digit):X}" for digit in query["expires"])
    text = change.format(e=query["expires"], s=query["signature"], u=query["signature"].upper(), wide=wide)
    assert_problem(await signed.get(f"{url.path}?{text}"), 403, "bad_signature")


async def test_the_order_of_the_parameters_does_not_matter(signed: Running) -> None:
    url = signed.app[EXPORTS].links.build(put(signed))
    path, _, query = url.partition("?")
    first, _, second = query.partition("&")
    assert (await signed.get(f"{path}?{second}&{first}")).status == 200


async def test_a_link_may_not_live_longer_than_seven_days(signed: Running) -> None:
    name = put(signed)
    signer = links(signed.settings, now=time.time() + 360, url_signature_expiry=MAX_LIFE_SECONDS)
    assert_problem(await signed.get(signer.build(name)), 403, "bad_signature")
    signer = links(signed.settings, now=time.time() + 240, url_signature_expiry=MAX_LIFE_SECONDS)
    assert (await signed.get(signer.build(name))).status == 200


async def test_the_first_key_signs_and_all_verify(signed: Running) -> None:
    name = put(signed)
    assert (await signed.get(links(signed.settings, OLD_SECRET).build(name))).status == 200
    assert_problem(await signed.get(links(signed.settings, "s" * 40).build(name)), 403, "bad_signature")
    now = time.time()
    service_links = signed.app[EXPORTS].links
    service_links._now = lambda: now
    assert service_links.build(name) == links(signed.settings, SECRET, now).build(name)


# Ranges and conditions

N = len(DATA)


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [("bytes=0-0", 0, 0), ("bytes=0-", 0, N - 1), ("bytes=5-9", 5, 9), ("bytes=-7", N - 7, N - 1),
     (f"bytes={N - 1}-", N - 1, N - 1), (f"bytes=3-{N * 9}", 3, N - 1), (f"bytes=-{N * 9}", 0, N - 1),
     ("Bytes=1-2", 1, 2),
     ("bytes=1-99999999999999999999999999", 1, N - 1)],
)  # fmt: skip
async def test_one_range_is_206(service: Running, header: str, first: int, last: int) -> None:
    path = f"/static/output/{put(service)}"
    got = await service.get(path, Range=header)
    assert (got.status, got.body) == (206, DATA[first : last + 1])
    assert got.headers["Content-Range"] == f"bytes {first}-{last}/{N}"
    assert got.headers["Content-Length"] == str(last + 1 - first)
    assert got.headers["ETag"]
    assert got.headers["Content-Type"] == "image/png"


@pytest.mark.parametrize("header", ["bytes=0-1,3-4", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-2", "lines=0-1", "0-1",
                                    "bytes=٣-٤", "bytes=1-2 junk", "bytes=+1-2", "bytes=0-0,-1"])  # fmt: skip
async def test_several_or_malformed_ranges_are_answered_whole(service: Running, header: str) -> None:
    request = f"GET /static/output/{put(service)} HTTP/1.1\r\nHost: localhost\r\nRange: {header}\r\n\r\n"
    got = await service.raw(request.encode())
    assert (got.status, got.body) == (200, DATA)
    assert "Content-Range" not in got.headers


@pytest.mark.parametrize("header", [f"bytes={N}-", f"bytes={N * 9}-{N * 10}", "bytes=-0", f"bytes={10**30}-"])
async def test_an_unsatisfiable_range_is_416(service: Running, header: str) -> None:
    got = await service.get(f"/static/output/{put(service)}", Range=header)
    assert_problem(got, 416, "range_not_satisfiable", str(N))
    assert got.headers["Content-Range"] == f"bytes */{N}"


async def test_if_range_wants_the_strong_etag(service: Running) -> None:
    path = f"/static/output/{put(service)}"
    etag = (await service.get(path)).headers["ETag"]
    assert (await service.get(path, Range="bytes=0-3", If_Range=etag)).status == 206
    for stale in ('"stale"', f"W/{etag}", etag.strip('"'), "Wed, 21 Oct 2037 07:28:00 GMT"):
        got = await service.get(path, Range="bytes=0-3", If_Range=stale)
        assert (got.status, got.body) == (200, DATA)
    assert (await service.get(path, Range=f"bytes={N}-", If_Range='"stale"')).status == 200


async def test_another_file_under_the_name_has_another_etag(service: Running) -> None:
    name = put(service)
    path = f"/static/output/{name}"
    etag = (await service.get(path)).headers["ETag"]
    replacement = Path(service.settings.area("output"), put(service, data=bytes(N)))
    replacement.rename(replacement.with_name(name))
    got = await service.get(path, Range="bytes=0-3", If_Range=etag)
    assert (got.status, got.body) == (200, bytes(N))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("form", ["{}", "W/{}", "*", '"a", {} ,"b"', '"a",W/{}'])
async def test_if_none_match_is_304(service: Running, method: str, form: str) -> None:
    path = f"/static/output/{put(service)}"
    etag = (await service.get(path)).headers["ETag"]
    got = await service.ask(method, path, headers={"If-None-Match": form.format(etag), "Range": "bytes=0-1"})
    assert (got.status, got.body) == (304, b"")
    assert got.headers["ETag"] == etag
    assert got.headers["Cache-Control"].startswith("public")
    assert (await service.get(path, If_None_Match='"other"')).status == 200


async def test_a_head_ignores_the_range(service: Running) -> None:
    got = await service.ask("HEAD", f"/static/output/{put(service)}", headers={"Range": "bytes=0-1"})
    assert (got.status, got.headers["Content-Length"]) == (200, str(N))


# Streaming

BIG = 24 * MIB


@pytest_asyncio.fixture(loop_scope="session")
async def big(service: Running) -> AsyncIterator[Path]:
    path = Path(service.settings.area("output"), put(service, data=b"\x5a" * BIG))
    yield path
    path.unlink(missing_ok=True)


def request_for(path: Path) -> bytes:
    return f"GET /static/output/{path.name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


async def test_a_file_removed_while_it_streams_arrives_whole(service: Running, big: Path) -> None:
    async with service.connected() as (reader, writer):
        writer.write(request_for(big))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        big.unlink()
        data = await reader.readexactly(BIG)
        assert data.count(0x5A) == BIG
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await read_answer(reader)).status == 200


async def test_a_file_cut_while_it_streams_breaks_the_connection(service: Running, big: Path) -> None:
    async with service.connected() as (reader, writer):
        writer.write(request_for(big))
        await reader.readuntil(b"\r\n\r\n")
        os.truncate(big, MIB)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(BIG)


async def test_a_client_that_stops_reading_is_dropped(serve: Serve) -> None:
    service = await serve(download_stall_seconds=0.3)
    path = Path(service.settings.area("output"), put(service, data=bytes(BIG)))
    admission = service.app[ADMISSION]
    async with service.connected() as (reader, writer):
        writer.write(request_for(path))
        await until(lambda: admission.inside["download"] == 1)
        await until(lambda: admission.inside["download"] == 0)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(BIG)


async def test_a_client_that_reads_slowly_is_not_dropped(serve: Serve) -> None:
    """The kernel accepts more once a third of its buffer is free, which takes a slow client several deadlines."""
    service = await serve(download_stall_seconds=0.3)
    path = Path(service.settings.area("output"), put(service, data=bytes(BIG)))
    async with service.connected() as (reader, writer):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 1024)
        writer.write(request_for(path))
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(100):
            await reader.readexactly(16 * 1024)
            await asyncio.sleep(0.02)
        await reader.readexactly(BIG - 100 * 16 * 1024)


async def test_a_client_that_goes_away_frees_its_place(service: Running, big: Path) -> None:
    admission = service.app[ADMISSION]
    async with service.connected() as (_, writer):
        writer.write(request_for(big))
        await until(lambda: admission.inside["download"] == 1)
    await until(lambda: admission.inside["download"] == 0)


async def test_many_downloads_at_once(service: Running) -> None:
    names = [put(service, data=DATA + bytes([at])) for at in range(50)]
    got: list[Answer] = await asyncio.gather(*(service.get(f"/static/output/{name}") for name in names))
    assert [answer.body for answer in got] == [DATA + bytes([at]) for at in range(50)]


# Kept in memory


@pytest.mark.parametrize("gone", ["unlinked", "swept"])
async def test_a_cached_download_ends_with_its_file(service: Running, gone: str) -> None:
    name = put(service)
    path = Path(service.settings.area("output"), name)
    assert (await service.get(f"/static/output/{name}")).status == 200
    if gone == "swept":
        os.utime(path, (1, 1))
        await asyncio.to_thread(sweep_area, service.settings, "output")
    else:
        path.unlink()
    assert_problem(await service.get(f"/static/output/{name}"), 404, "not_found")


async def test_a_kept_download_still_wants_its_signature(serve: Serve) -> None:
    service = await serve(sign_urls=True, signing_secret=SECRET)
    url = service.app[EXPORTS].links.build(put(service))
    assert (await service.get(url)).status == 200
    assert_problem(await service.get(f"{url[:-4]}0000"), 403, "bad_signature")
    links_now = time.time() + 3601
    service.app[EXPORTS].links._now = lambda: links_now
    assert_problem(await service.get(url), 410, "link_expired")


@pytest.mark.parametrize("megabytes", [0, 1])
async def test_downloads_are_the_same_with_and_without_memory(serve: Serve, megabytes: int) -> None:
    service = await serve(download_cache_mb=megabytes)
    path = f"/static/output/{put(service)}"
    for _ in range(2):
        assert (await service.get(path)).body == DATA
        assert (await service.get(path, Range="bytes=2-4")).body == DATA[2:5]


# Sent by nginx


@pytest.mark.parametrize(("options", "warned"), [
    ({"accel_redirect_prefix": "/_exports/"}, True),
    ({"accel_redirect_prefix": "/_exports/", "storage_mode": "private"}, False),
    ({"accel_redirect_prefix": "/_exports/", "storage_mode": "shared"}, False),
    ({}, False),
])  # fmt: skip
async def test_exports_that_nginx_may_be_unable_to_read_are_warned_of(
    serve: Serve, caplog: pytest.LogCaptureFixture, options: dict[str, str], warned: bool
) -> None:
    await serve(**options)
    assert ("STORAGE_MODE" in caplog.text) == warned


async def test_nginx_gets_the_file_to_send(serve: Serve) -> None:
    service = await serve(sign_urls=True, signing_secret=SECRET, accel_redirect_prefix="/_exports/")
    name = put(service, ".webp")
    url = service.app[EXPORTS].links.build(name)
    for _ in range(2):
        got = await service.get(url, Range="bytes=0-3", If_None_Match="*")
        assert (got.status, got.body) == (200, b"")
        assert got.headers["X-Accel-Redirect"] == f"/_exports/{name}"
        assert got.headers["Content-Type"] == "image/webp"
        assert got.headers["Cache-Control"].startswith("private, max-age=3")
        assert got.headers["Content-Disposition"] == f'inline; filename="{name}"'
    assert_problem(await service.get(f"{url[:-4]}0000"), 403, "bad_signature")
    Path(service.settings.area("output"), name).unlink()
    assert_problem(await service.get(url), 404, "not_found")
