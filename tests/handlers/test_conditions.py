"""Conditional downloads as RFC 9110, 13.2.2 orders them."""

import os
from pathlib import Path

import pytest
import pytest_asyncio

from service.server.keys import EXPORTS
from service.settings import MIB
from tests.conftest import Serve
from tests.handlers.test_downloads import DATA, SECRET, put
from tests.helpers import Answer, Running, assert_problem

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Made within this second, which HTTP-dates cannot tell.
MADE = 1_700_000_000.75
SAME, BEFORE, AFTER = (f"Tue, 14 Nov 2023 22:13:{second} GMT" for second in ("20", "19", "21"))

# The sweep at the start must leave files of that age.
KEPT = {"output_retention_days": 0}


def place(service: Running, data: bytes = DATA) -> str:
    name = put(service, data=data)
    os.utime(Path(service.settings.area("output"), name), (MADE, MADE))
    return f"/static/output/{name}"


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def _uncached(serve_all: Serve) -> Running:
    return await serve_all(download_cache_mb=0, **KEPT)


@pytest_asyncio.fixture(loop_scope="session", params=["memory", "disk", "big"])
async def download(service: Running, _uncached: Running, request: pytest.FixtureRequest) -> tuple[Running, str, str]:
    """A service, the path of an export and its ETag, for each way of sending."""
    if request.param == "disk":
        service = _uncached
    path = place(service, DATA if request.param != "big" else bytes(MIB))
    return service, path, (await service.get(path)).headers["ETag"]


async def conditional(service: Running, path: str, method: str = "GET", **headers: str) -> Answer:
    return await service.ask(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize("tags", ["{}", "*", '"a", {}', '"a",{},"b"', 'W/"a",{}', " {} ", ', {} ,,"b"'])
async def test_if_match_with_the_files_tag_is_answered(download: tuple[Running, str, str], tags: str) -> None:
    service, path, etag = download
    for method in ("GET", "HEAD"):
        assert (await conditional(service, path, method, If_Match=tags.format(etag))).status == 200


@pytest.mark.parametrize("tags", ["W/{}", '"other"', '"a", W/{}', "{bare}", "", "**", "{}x", '"{bare}', "w/{}"])
async def test_if_match_with_other_tags_is_412_with_the_etag(download: tuple[Running, str, str], tags: str) -> None:
    service, path, etag = download
    given = tags.format(etag, bare=etag.strip('"'))
    got = await conditional(service, path, If_Match=given)
    assert_problem(got, 412, "precondition_failed")
    assert got.headers["ETag"] == etag
    head = await conditional(service, path, "HEAD", If_Match=given)
    assert (head.status, head.body) == (412, b"")
    assert (await service.get(path)).status == 200


async def test_several_lines_of_if_match_are_one_list(service: Running) -> None:
    path = place(service)
    etag = (await service.get(path)).headers["ETag"]
    raw = f'GET {path} HTTP/1.1\r\nHost: localhost\r\nIf-Match: "a"\r\nIf-Match: {etag}\r\n\r\n'
    assert (await service.raw(raw.encode())).status == 200


@pytest.mark.parametrize(
    ("since", "status"),
    [
        (SAME, 200),
        (AFTER, 200),
        (BEFORE, 412),
        ("Tuesday, 14-Nov-23 22:13:20 GMT", 200),
        ("Tuesday, 14-Nov-23 22:13:19 GMT", 412),
        ("Tue Nov 14 22:13:20 2023", 200),
        ("Tue Nov  7 22:13:20 2023", 412),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 412),
    ],
)
async def test_if_unmodified_since_is_412_once_the_file_is_newer(
    download: tuple[Running, str, str], since: str, status: int
) -> None:
    service, path, _ = download
    for method in ("GET", "HEAD"):
        assert (await conditional(service, path, method, If_Unmodified_Since=since)).status == status


@pytest.mark.parametrize(
    "since",
    ["yesterday", "", "0", "Tue, 32 Nov 1999 22:13:20 GMT", "Tue, 14 Nov 1999 25:13:20 GMT", "1999-11-14T22:13:20Z",
     "Tue, 14 Nov 1999 22:13:20 +0900", f"{BEFORE}, {BEFORE}", "Tue, 14 Nov 1999 22:13:20",
     "Tue, 14 Xyz 1999 22:13:20 GMT"],
)  # fmt: skip
async def test_a_malformed_date_is_ignored(service: Running, since: str) -> None:
    assert (await conditional(service, place(service), If_Unmodified_Since=since)).status == 200


async def test_two_dates_are_ignored(service: Running) -> None:
    lines = f"If-Unmodified-Since: {BEFORE}\r\n" * 2
    raw = f"GET {place(service)} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"
    assert (await service.raw(raw.encode())).status == 200


# Precedence


async def test_if_match_goes_before_if_unmodified_since(download: tuple[Running, str, str]) -> None:
    service, path, etag = download
    assert (await conditional(service, path, If_Match=etag, If_Unmodified_Since=BEFORE)).status == 200
    assert (await conditional(service, path, If_Match='"other"', If_Unmodified_Since=AFTER)).status == 412


@pytest.mark.parametrize("first", [{"If_Match": '"other"'}, {"If_Unmodified_Since": BEFORE}])
async def test_412_goes_before_304_and_416(download: tuple[Running, str, str], first: dict[str, str]) -> None:
    service, path, etag = download
    late = f"bytes={MIB}-"
    for rest in ({"If_None_Match": etag}, {"Range": late}, {"Range": "bytes=0-1"}, {"Range": late, "If_Range": etag}):
        assert_problem(await conditional(service, path, **first, **rest), 412, "precondition_failed")


@pytest.mark.parametrize("first", [{"If_Match": "*"}, {"If_Unmodified_Since": SAME}, {"If_Unmodified_Since": "never"}])
async def test_then_304_goes_before_the_range(download: tuple[Running, str, str], first: dict[str, str]) -> None:
    service, path, etag = download
    late = f"bytes={MIB}-"
    assert (await conditional(service, path, **first, If_None_Match=etag, Range=late)).status == 304
    assert (await conditional(service, path, **first, If_None_Match='"other"', Range=late)).status == 416
    assert (await conditional(service, path, **first, Range="bytes=1-2")).status == 206
    assert (await conditional(service, path, **first, Range="bytes=1-2", If_Range='"other"')).status == 200


@pytest.mark.parametrize("conditions", [{"If_Match": '"other"'}, {"If_Unmodified_Since": BEFORE}, {"If_Match": "*"}])
async def test_signature_expiry_and_existence_go_before_412(serve: Serve, conditions: dict[str, str]) -> None:
    service = await serve(sign_urls=True, signing_secret=SECRET, **KEPT)
    links, path = service.app[EXPORTS].links, place(service)
    name = path.rpartition("/")[2]
    now = links._now()
    url = links.build(name)
    assert_problem(await conditional(service, f"{url[:-4]}0000", **conditions), 403, "bad_signature")
    links._now = lambda: now - 7200
    old = links.build(name)
    links._now = lambda: now
    assert_problem(await conditional(service, old, **conditions), 410, "link_expired")
    Path(service.settings.area("output"), name).unlink()
    assert_problem(await conditional(service, url, **conditions), 404, "not_found")


# With nginx


@pytest.mark.parametrize("megabytes", [0, 1])
async def test_before_a_hand_off_the_tag_is_that_of_nginx(serve: Serve, megabytes: int) -> None:
    service = await serve(accel_redirect_prefix="/_exports/", download_cache_mb=megabytes, **KEPT)
    path, etag = place(service), f'"{int(MADE):x}-{len(DATA):x}"'
    for _ in range(2):
        for conditions in ({"If_Match": etag}, {"If_Match": "*"}, {"If_Unmodified_Since": SAME}):
            got = await conditional(service, path, **conditions)
            assert (got.status, got.headers["X-Accel-Redirect"][:10]) == (200, "/_exports/")
        for conditions in ({"If_Match": '"other"'}, {"If_Match": f"W/{etag}"}, {"If_Unmodified_Since": BEFORE}):
            got = await conditional(service, path, **conditions)
            assert_problem(got, 412, "precondition_failed")
            assert got.headers["ETag"] == etag
            assert "X-Accel-Redirect" not in got.headers
