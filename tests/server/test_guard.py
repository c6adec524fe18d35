"""API keys, the Host rule and the Origin rule, which hold for every path that is not listed as open."""

import itertools
import re

import pytest

from service.app import TABLE
from tests.conftest import Serve
from tests.helpers import Running, assert_problem, form

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY = "k" * 16
# Paths that need neither a key nor a known Host, and those that need no key.
OPEN = {"/static/output/{name}", "/api/download/{name}", "/healthz", "/readyz"}
PAGES = {"/", "/studio/{name}", "/openapi.json", "/docs"}
SIGNED = {"sign_urls": True, "signing_secret": "s" * 32}


async def test_only_the_routes_on_the_list_are_not_guarded() -> None:
    assert {route.path for route in TABLE if route.access == "open"} == OPEN
    assert {route.path for route in TABLE if route.access == "page"} == PAGES


# Keys


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND")


@pytest.mark.parametrize("path", ["/nowhere", "/metrics/", "/api", "/static", "/api/download", "/api/download/a/b",
                                  "/studio", "/v1/models", "/METRICS", "//", "/%00", "/healthz/x", "*", "/docsx",
                                  "/openapi.json/", "/openapi.yaml", "/favicon.ico/x", "/Docs", "//docs/", "/x/docs/",
                                  "/./docs", "/studio%2f..%2fmetrics/"])  # fmt: skip
async def test_a_path_that_is_not_listed_needs_a_key_whether_it_exists_or_not(serve: Serve, path: str) -> None:
    service = await serve(api_keys=KEY)
    for method in ("OPTIONS",) if path == "*" else METHODS:
        assert await status_of(service, method, path) == 401, method
    assert (await service.get("/nowhere", Authorization=f"Bearer {KEY}")).status == 404


async def status_of(service: Running, method: str, path: str) -> int:
    raw = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    async with service.connected() as (reader, writer):
        writer.write(raw.encode())
        return int((await reader.read()).split()[1])


async def test_every_route_that_is_guarded_needs_a_key_whatever_the_method(serve: Serve) -> None:
    service = await serve(api_keys=KEY)
    paths = {re.sub(r"\{.+?\}", "x", route.path) for route in TABLE if route.access == "guarded"}
    assert len(paths) > 8
    for path, method in itertools.product(paths, METHODS):
        assert await status_of(service, method, path) == 401, (method, path)


@pytest.mark.parametrize("path", ["/favicon.ico", "/docs/x", "/docs/", "/docs/a/b", "/studio/", "/studio/a/b"])
async def test_a_page_that_does_not_exist_is_404_without_a_key(serve: Serve, path: str) -> None:
    service = await serve(api_keys=KEY)
    for method in ("GET", "HEAD", "POST", "PROPFIND"):
        assert await status_of(service, method, path) in (404, 405)
    open_to_all = await serve()
    assert_problem(await open_to_all.get(path, Host="evil.example"), 403, "cross_origin")


@pytest.mark.parametrize("keys", [f"app:{KEY}", f"{'x' * 16},app:{KEY},app:{'y' * 16}"])
async def test_a_named_key_is_sent_without_its_name(serve: Serve, keys: str) -> None:
    service = await serve(api_keys=keys)
    assert (await service.get("/metrics", Authorization=f"Bearer {KEY}")).status == 200
    for wrong in (f"app:{KEY}", "app", "", KEY[:-1], f"{KEY}k"):
        assert_problem(await service.get("/metrics", Authorization=f"Bearer {wrong}"), 401, "unauthorized")


async def test_an_open_path_needs_no_key_and_a_wrong_method_there_is_405(serve: Serve) -> None:
    service = await serve(api_keys=KEY, **SIGNED)
    name = f"export_{'0' * 32}.png"
    expected = {"/": 200, "/healthz": 200, "/readyz": 200, "/studio/studio.css": 200, "/studio/none.css": 404,
                f"/api/download/{name}": 403, f"/static/output/{name}": 404}  # fmt: skip
    for path, status in expected.items():
        for method in ("GET", "HEAD"):
            answer = await service.ask(method, path, headers={"Host": "elsewhere.example"})
            assert answer.status == status, (method, path)
        assert_problem(await service.ask("DELETE", path), 405, "method_not_allowed")
    assert_problem(await service.ask("DELETE", "/metrics"), 401, "unauthorized")


# Host


def host_rule(service: Running, host: str) -> list[tuple[str, str, str]]:
    paths = ("/metrics", "/", "/studio/studio.css", "/nowhere", "/api/thumbnails", "//", "/%2e")
    return [(method, path, host) for method, path in itertools.product(("GET", "HEAD", "POST", "DELETE"), paths)]


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "10.0.0.1", "[::2]", "[", "0.0.0.0",
                                  "[::ffff:10.0.0.1]", "localhost..", "127.0.0.1.evil.example", "", "ｌocalhost.x",
                                  "2130706433", ":8000", "\udcff", "evil.example@localhost", "@localhost",
                                  "user:password@localhost:80", "localhost@evil.example", "localhost/evil.example",
                                  "localhost?evil.example", "localhost#evil.example", "localhost\\evil.example",
                                  "local host", "localhost evil.example", "localhost, evil.example", "localhost:x",
                                  "localhost:99999", "localhost:-1", "localhost:+80", "localhost:80:80",
                                  "localhost:８０", "::1", "[::1", "::1]", "[localhost]", "[::1]evil.example",
                                  "[::1].example", "[::1]80", "[::1%lo]", "[v1.1]", "ｌocalhost", "１27.0.0.1",
                                  "lo%63alhost", ".localhost", "localhost。"])  # fmt: skip
async def test_without_keys_an_unknown_host_is_403_also_for_a_get(service: Running, host: str) -> None:
    for method, path, _ in host_rule(service, host):
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        async with service.connected() as (reader, writer):
            writer.write(head.encode("utf-8", "surrogateescape"))
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 403 "), (method, path)
        assert (b"cross_origin" in answer) == (method != "HEAD")


@pytest.mark.parametrize("host", ["localhost", "LocalHost:8000", "localhost.", "localhost.:80", "127.1.2.3:443",
                                  "[::1]", "[::1]:8000", "[::ffff:127.0.0.1]:8000", "[::ffff:7f00:1]",
                                  "studio.localhost.", "127.0.0.1."])  # fmt: skip
async def test_a_loopback_host_is_accepted(service: Running, host: str) -> None:
    for path in ("/metrics", "/", "/studio/studio.css"):
        assert (await service.get(path, Host=host)).status == 200, path
        assert (await service.ask("HEAD", path, headers={"Host": host})).status == 200, path
    assert (await service.get("/nowhere", Host=host)).status == 404
    assert (await service.post("/api/exports", headers={"Host": host, "Origin": f"http://{host}"})).status == 422


async def test_probes_and_downloads_obey_no_host_rule(serve: Serve) -> None:
    for options in ({}, SIGNED):
        service = await serve(**options)
        for path, status in {"/healthz": 200, "/readyz": 200}.items():
            assert (await service.get(path, Host="probe.example")).status == status
        name = f"export_{'0' * 32}.png"
        assert (await service.get(f"/static/output/{name}", Host="cdn.example")).status == 404
        assert (await service.get(f"/api/download/{name}", Host="cdn.example")).status in (403, 404)


async def test_the_host_of_an_absolute_form_target_counts(service: Running) -> None:
    for target, host, status in (
        ("http://evil.example/metrics", "localhost", 403),
        ("http://localhost/metrics", "evil.example", 200),
        ("http://localhost:1/metrics", "localhost", 200),
        ("HTTP://LOCALHOST/metrics", "evil.example", 200),
        ("http://evil.example@localhost/metrics", "localhost", 403),
        ("http://@localhost/metrics", "localhost", 403),
        ("http://localhost@evil.example/metrics", "localhost", 403),
        ("http://[::1]/metrics", "localhost", 200),
        ("http://[/metrics", "localhost", 400),
        ("http:///metrics", "localhost", 400),
    ):
        answer = await service.raw(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert answer.status == status, target


async def test_a_get_without_a_host_is_403(service: Running) -> None:
    for path, status in {"/metrics": 403, "/": 403, "/healthz": 200}.items():
        assert (await service.raw(f"GET {path} HTTP/1.0\r\n\r\n".encode())).status == status


@pytest.mark.parametrize("host", ["pictures.example", "PICTURES.example:8443", "pictures.example.",
                                  "xn--bcher-kva.example"])  # fmt: skip
async def test_the_host_of_public_url_is_accepted(serve: Serve, host: str) -> None:
    name = "bücher.example" if host.startswith("xn--") else "Pictures.EXAMPLE"
    service = await serve(public_url=f"https://{name}/thumbs/")
    for path in ("/metrics", "/", "/api/exports"):
        assert (await service.get(path, Host=host)).status in (200, 405)
        assert_problem(await service.get(path, Host=f"x{host}"), 403, "cross_origin", "PUBLIC_URL")


# Origin: scheme, host and port


async def asked(service: Running, host: str, *origins: str) -> int:
    """The status of an empty form; each origin is sent in a header of its own."""
    body = form()
    lines = [f"Host: {host}", *(f"Origin: {origin}" for origin in origins), f"Content-Length: {len(body)}",
             "Content-Type: multipart/form-data; boundary=----the-boundary"]  # fmt: skip
    head = "\r\n".join(["POST /api/exports HTTP/1.1", *lines, "", ""])
    return (await service.raw(head.encode() + body)).status


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost", "http://localhost"),
        ("localhost", "http://localhost:80"),
        ("localhost:80", "http://localhost"),
        ("LOCALHOST:8000", "HTTP://localhost:8000"),
        ("localhost.:8000", "http://localhost.:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("[0:0:0:0:0:0:0:1]:8000", "http://[0:0:0:0:0:0:0:1]:8000"),
        ("127.0.0.1:8000", ""),
    ],
)
async def test_the_own_origin_is_accepted(service: Running, host: str, origin: str) -> None:
    assert await asked(service, host, origin) == 422


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost", "https://localhost"),
        ("localhost:443", "https://localhost"),
        ("localhost:8000", "https://localhost:8000"),
        ("localhost:8000", "http://localhost"),
        ("localhost", "http://localhost:443"),
        ("localhost:8000", "http://127.0.0.1:8000"),
        ("localhost:8000", "ws://localhost:8000"),
        ("localhost:8000", "localhost:8000"),
        ("localhost:8000", "//localhost:8000"),
        ("localhost:8000", "http://localhost:8000.evil.example"),
        ("localhost:8000", "http://localhost:8000, http://evil.example"),
        ("localhost:99999", "http://localhost:99999"),
        ("localhost:8000", "null"),
        ("localhost:8000", "chrome-extension://localhost"),
        ("localhost:8000", "http://evil.example@localhost:8000"),
        ("localhost:8000", "http://localhost:8000/"),
        ("localhost:8000", "http://localhost:8000?evil.example"),
        ("localhost:8000", "http://ｌocalhost:8000"),
    ],
)
async def test_an_origin_of_another_scheme_name_or_port_is_403(service: Running, host: str, origin: str) -> None:
    assert await asked(service, host, origin) == 403


async def test_each_of_several_origins_must_be_allowed(service: Running) -> None:
    own, other = "http://localhost:8000", "http://evil.example"
    assert await asked(service, "localhost:8000", own, own) == 422
    assert await asked(service, "localhost:8000", own, other) == 403
    assert await asked(service, "localhost:8000", other, own) == 403


async def test_behind_tls_the_origin_is_that_of_the_public_address(serve: Serve) -> None:
    service = await serve(public_url="https://Pictures.example:443/thumbs")
    own, plain = "https://pictures.example", "http://pictures.example"
    for host in ("pictures.example", "pictures.example:443", "localhost:8000"):
        assert await asked(service, host, own) == 422
        assert await asked(service, host, plain) == 403
    assert await asked(service, "localhost:8000", "http://localhost:8000") == 422


async def test_behind_tls_cors_origins_will_do(serve: Serve) -> None:
    service = await serve(cors_origins="https://localhost:8443")
    assert await asked(service, "localhost:8443", "https://localhost:8443") == 422
    assert await asked(service, "localhost:8443", "https://localhost:9443") == 403
