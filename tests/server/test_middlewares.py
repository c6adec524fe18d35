"""Request ids, problem+json, keys, origins, the access log and request metrics."""

import itertools
import json
import logging

import pytest

from service.error_codes import classes
from service.errors import ServiceError
from service.handlers.operations import healthz
from service.logs import JsonFormatter
from service.server.keys import ADMISSION
from tests.conftest import Serve
from tests.helpers import SCRIPT, Answer, Running, assert_problem, form, picture_bytes, read_answer, upload

on_one_loop = pytest.mark.asyncio(loop_scope="session")

KEY, OTHER_KEY = "k" * 16, "another-key-of-some-length"
TINY = (("formats", "jpeg"), ("width", "16"))


async def thumbnails(service: Running, **headers: str) -> Answer:
    return await service.thumbnails(*TINY, headers={name.replace("_", "-"): value for name, value in headers.items()})


# One form of error


NOWHERE = (
    "/nowhere", "/api", "/api/", "/api/nowhere", "/static", "/healthz/", "//", "/%00", "/%ff", "/api/thumbnails/",
    "/API",
)  # fmt: skip


@pytest.mark.parametrize("path", NOWHERE)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@on_one_loop
async def test_an_unknown_route_is_404(service: Running, method: str, path: str) -> None:
    assert_problem(await service.ask(method, path), 404, "not_found", "no such route")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", "/api/thumbnails", "GET, POST"),
        ("PUT", "/api/thumbnails", "GET, POST"),
        ("GET", "/api/exports", "POST"),
        ("OPTIONS", "/api/exports", "POST"),
        ("DELETE", "/api/exports", "POST"),
        ("POST", "/static/output/x.png", "GET, HEAD"),
        ("DELETE", "/api/download/x.png", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
        ("PATCH", "/metrics", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
        ("PROPFIND", "/healthz", "GET, HEAD"),
    ],
)
@on_one_loop
async def test_a_wrong_method_is_405_and_names_the_right_ones(
    service: Running, method: str, path: str, allowed: str
) -> None:
    answer = await service.ask(method, path)
    assert_problem(answer, 405, "method_not_allowed", method, allowed)
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nBad Header: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /api/exports HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/exports HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /api/exports HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n",
    ],
    ids=lambda request: request[:30].decode("latin-1"),
)
@on_one_loop
async def test_what_is_no_http_request_is_400(service: Running, request_bytes: bytes) -> None:
    assert_problem(await service.raw(request_bytes), 400, "malformed_request")


@on_one_loop
async def test_an_unexpected_exception_is_500_without_details(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.app[ADMISSION], "enter", lambda kind: 1 / 0)
    answer = await service.thumbnails()
    body = assert_problem(answer, 500, "internal")
    assert "division" not in answer.body.decode()
    assert body["billed"] is None


def test_every_code_is_of_one_class_and_in_lower_case() -> None:
    codes = [kind.code for kind in classes(ServiceError)]
    assert len(codes) == len({*codes})
    assert all(code.replace("_", "").isalnum() and code.islower() for code in codes)


@on_one_loop
async def test_a_head_of_an_error_has_no_body(service: Running) -> None:
    answer = await service.ask("HEAD", "/nowhere")
    assert (answer.status, answer.body) == (404, b"")
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/", "/nowhere", "/static/output/x.png"])
@on_one_loop
async def test_every_answer_carries_its_id_and_nosniff(service: Running, path: str) -> None:
    first, second = await service.get(path), await service.get(path)
    for answer in (first, second):
        mark = answer.headers["X-Request-Id"]
        assert mark.startswith("req_")
        assert len(mark) == 36
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert first.headers["X-Request-Id"] != second.headers["X-Request-Id"]


# Keys


@pytest.fixture
def bearer() -> dict[str, str]:
    return {"Authorization": f"Bearer {KEY}"}


WRONG_KEYS: tuple[dict[str, str], ...] = (
    {},
    {"Authorization": ""},
    {"Authorization": KEY},
    {"Authorization": f"Basic {KEY}"},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer "},
    {"Authorization": f"Bearer {KEY[:-1]}"},
    {"Authorization": f"Bearer {KEY}k"},
    {"Authorization": f"Bearer {KEY},{OTHER_KEY}"},
    {"Authorization": "Bearer ключ-ключ-ключ-ключ"},
    {"X-Api-Key": KEY},
)
GUARDED = (
    ("POST", "/api/thumbnails"),
    ("POST", "/api/exports"),
    ("GET", "/api/exports"),
    ("GET", "/api/nowhere"),
    ("GET", "/metrics"),
)


@on_one_loop
async def test_no_or_a_wrong_key_is_401(serve: Serve) -> None:
    service = await serve(api_keys=f"{KEY},{OTHER_KEY}")
    with service.nothing_spent_or_left():
        for headers, (method, path) in itertools.product(WRONG_KEYS, GUARDED):
            answer = await service.ask(method, path, headers=headers)
            assert_problem(answer, 401, "unauthorized", "Authorization: Bearer")
            assert answer.headers["WWW-Authenticate"] == "Bearer"


@on_one_loop
@pytest.mark.parametrize("target", ["http://localhost/api/exports", "http://localhost/metrics", "/%61pi/exports",
                                    "/%6detrics", "/./api/exports", "/x/../metrics"])  # fmt: skip
async def test_no_encoding_of_a_path_bypasses_the_key(serve: Serve, target: str) -> None:
    service = await serve(api_keys=KEY)
    method = "GET" if target.endswith("metrics") else "POST"
    answer = await service.raw(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert answer.status in (401, 404), answer


@on_one_loop
async def test_each_key_opens_and_downloads_need_none(serve: Serve) -> None:
    service = await serve(api_keys=f"{KEY},{OTHER_KEY}", sign_urls=True, signing_secret="s" * 32)
    for header in (f"Bearer {KEY}", f"bearer  {OTHER_KEY}"):
        answer = await thumbnails(service, Authorization=header)
        assert answer.status == 200, answer.body
        assert (await service.get("/metrics", Authorization=header)).status == 200
    [variation] = answer.json["variations"]
    assert (await service.get(variation["exports"]["jpeg"]["url"])).status == 200
    for path in ("/healthz", "/readyz", "/"):
        assert (await service.get(path)).status == 200


@on_one_loop
async def test_with_a_key_the_origin_does_not_matter(serve: Serve, bearer: dict[str, str]) -> None:
    service = await serve(api_keys=KEY)
    headers = bearer | {"Origin": "https://elsewhere.example", "Host": "elsewhere.example"}
    assert (await service.thumbnails(*TINY, headers=headers)).status == 200


# Origins


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://[", "X": "an address that cannot be read"},
        {"Origin": "file://"},
        {"Host": "evil.example"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost.evil.example"},
        {"Host": "10.0.0.1"},
        {"Host": "[::2]"},
        {"Host": "["},
    ],
    ids=str,
)
@on_one_loop
async def test_a_foreign_origin_is_403(service: Running, headers: dict[str, str]) -> None:
    with service.nothing_spent_or_left():
        for path in ("/api/thumbnails", "/api/exports"):
            answer = await service.post(path, ("script", SCRIPT), headers=headers)
            assert_problem(answer, 403, "cross_origin")


@pytest.mark.parametrize("host", ["localhost", "localhost:9", "LOCALHOST", "127.0.0.1:80", "127.1.2.3", "[::1]:8000",
                                  "studio.localhost"])  # fmt: skip
@on_one_loop
async def test_our_own_page_may_ask(service: Running, host: str) -> None:
    assert (await thumbnails(service, Host=host)).status == 200
    assert (await thumbnails(service, Host=host, Origin=f"http://{host}".lower())).status == 200


@on_one_loop
async def test_a_request_without_a_host_is_403(service: Running) -> None:
    body = form(("script", SCRIPT))
    answer = await service.raw(b"POST /api/exports HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert_problem(answer, 403, "cross_origin")


@on_one_loop
async def test_the_public_address_may_ask(serve: Serve) -> None:
    service = await serve(public_url="https://Pictures.example/thumbs/")
    assert (await thumbnails(service, Host="pictures.example", Origin="https://pictures.example")).status == 200
    assert (await thumbnails(service, Origin="https://pictures.example")).status == 200
    assert_problem(await thumbnails(service, Host="other.example"), 403, "cross_origin", "PUBLIC_URL")


@on_one_loop
async def test_a_default_port_that_browsers_omit_is_equal(serve: Serve) -> None:
    service = await serve(public_url="https://pictures.example:443", cors_origins="https://app.example:443")
    for origin in ("https://pictures.example", "https://app.example"):
        assert (await thumbnails(service, Origin=origin)).status == 200
    assert_problem(await thumbnails(service, Origin="https://pictures.example:444"), 403, "cross_origin")


@on_one_loop
async def test_cors_origins_may_ask_and_read(serve: Serve) -> None:
    service = await serve(cors_origins="https://app.example, http://localhost:3000")
    for origin in ("https://app.example", "http://localhost:3000"):
        answer = await thumbnails(service, Origin=origin)
        assert answer.status == 200
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert "X-Request-Id" in answer.headers["Access-Control-Expose-Headers"]
        assert "Origin" in answer.headers["Vary"]
    refused = await service.post("/api/exports", headers={"Origin": "https://app.example"})
    assert refused.headers["Access-Control-Allow-Origin"] == "https://app.example"
    other = await thumbnails(service, Origin="https://app.example.evil.example")
    assert_problem(other, 403, "cross_origin", "CORS_ORIGINS")
    assert "Access-Control-Allow-Origin" not in other.headers


@on_one_loop
async def test_a_cache_keeps_the_answers_of_origins_apart(serve: Serve) -> None:
    service = await serve(cors_origins="https://app.example")
    for headers in ({}, {"Origin": "https://app.example"}, {"Origin": "https://other.example"}):
        assert (await service.get("/static/output/x.png", **headers)).headers["Vary"] == "Origin"


@on_one_loop
@pytest.mark.parametrize("keys", ["", KEY])
async def test_a_preflight_is_answered_for_cors_origins(serve: Serve, keys: str) -> None:
    service = await serve(cors_origins="https://app.example", api_keys=keys)
    asking = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    for path in ("/api/thumbnails", "/api/exports", "/static/output/x.png"):
        answer = await service.ask("OPTIONS", path, headers=asking)
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        assert {"Authorization", "Content-Type"} <= {*answer.headers["Access-Control-Allow-Headers"].split(", ")}
    own = asking | {"Access-Control-Request-Headers": "authorization, x-stainless-retry-count, x-evil"}
    answer = await service.ask("OPTIONS", "/v1/images/generations", headers=own)
    assert "x-stainless-retry-count" in answer.headers["Access-Control-Allow-Headers"]
    assert "x-evil" not in answer.headers["Access-Control-Allow-Headers"]
    stranger = await service.ask("OPTIONS", "/api/exports", headers=asking | {"Origin": "https://evil.example"})
    assert stranger.status in (401, 405)
    assert "Access-Control-Allow-Origin" not in stranger.headers


@on_one_loop
async def test_without_cors_origins_no_answer_allows_any(service: Running) -> None:
    answer = await service.get("/healthz", Origin="https://app.example")
    assert answer.status == 200
    assert "Access-Control-Allow-Origin" not in answer.headers


# Logs and metrics


@on_one_loop
async def test_the_access_log_sees_no_signature_and_no_script(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    service = await serve(sign_urls=True, signing_secret="s" * 32)
    answer = await service.post("/api/thumbnails", ("script", "a very private script"), upload(picture_bytes()), *TINY)
    url = answer.json["variations"][0]["exports"]["jpeg"]["url"]
    await service.get(url)
    await service.get(url + "&extra=1")
    await service.raw(f"GET {url} HTTP/9.9\r\n\r\n".encode())
    text = "\n".join(f"{record.getMessage()} {record.exc_text}" for record in caplog.records)
    assert "private" not in text
    assert url.rpartition("=")[2] not in text
    assert "/api/thumbnails" in text
    assert url.partition("?")[0] in text


@on_one_loop
async def test_a_log_line_in_json_names_its_request(service: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "service.access")
    await service.get("/healthz?token=secret")
    [record] = [each for each in caplog.records if each.name == "service.access"]
    record.request_id = "req_1"
    line = json.loads(JsonFormatter().format(record))
    assert line["request_id"] == "req_1"
    assert (line["method"], line["path"], line["status"]) == ("GET", "/healthz", 200)
    assert "\n" not in JsonFormatter().format(record)


@pytest.mark.parametrize("path", ["/%0d%0aforged", "/\x7f", "/%1b[31m"])
@on_one_loop
async def test_a_log_line_cannot_be_forged(service: Running, caplog: pytest.LogCaptureFixture, path: str) -> None:
    caplog.set_level(logging.INFO, "service.access")
    await service.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    for record in caplog.records:
        assert record.getMessage().isprintable()


@on_one_loop
async def test_metrics_count_answers_by_route_and_never_by_path(service: Running) -> None:
    for path in ("/healthz", "/nowhere/a", "/static/output/zzz"):
        await service.get(path)
    await service.ask("PROPFIND", "/healthz")
    text = (await service.get("/metrics")).body.decode()
    assert 'image_export_requests_total{method="GET",route="/healthz",status="200"}' in text
    assert 'route="other"' in text
    assert 'method="other"' in text
    assert "nowhere" not in text
    assert "PROPFIND" not in text
    assert "zzz" not in text


@on_one_loop
async def test_operations(service: Running) -> None:
    assert (await service.get("/healthz")).json == {"status": "ok"}
    ready = await service.get("/readyz")
    assert ready.status == 200
    assert {*ready.json["checks"].values()} <= {"ok", None}
    metrics = await service.get("/metrics")
    assert metrics.headers["Content-Type"].startswith("text/plain; version=")
    assert (await service.ask("HEAD", "/healthz")).status == 200
    assert healthz.__doc__


@on_one_loop
async def test_one_connection_serves_many_requests(service: Running) -> None:
    async with service.connected() as (reader, writer):
        for path in ("/healthz", "/nowhere", "/readyz", "/static/output/x", "/healthz"):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert (await read_answer(reader)).status in (200, 404)
