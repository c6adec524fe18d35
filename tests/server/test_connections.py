"""Requests that the parser refuses, HTTP versions, and listening addresses."""

import asyncio
import logging
import re
import socket
import sys
from pathlib import Path

import aiohttp
import pytest
from aiohttp import hdrs

from service.server.sockets import open_sockets
from service.values import is_loopback
from tests.conftest import MakeSettings, Serve
from tests.helpers import QuickEmulator, Running, assert_problem, form, picture_bytes, running, upload

on_one_loop = pytest.mark.asyncio(loop_scope="session")

SECRET = "0123456789abcdef" * 4
LINK = f"/api/download/export_{'0' * 32}.png?expires=1&signature={SECRET}"
MALFORMED = {
    "a version that is none": f"GET {LINK} HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "no version": f"GET {LINK} x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a method that is none": f"{SECRET} / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an unknown method": f"FOO {LINK} HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a method in lower case": f"get {LINK} HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a link in a method": f"GE{LINK} / HTTP/1.1\r\n\r\n",
    "a header with no name": f"GET / HTTP/1.1\r\nHost: localhost\r\n: {SECRET}\r\n\r\n",
    "a header name of many words": f"GET / HTTP/1.1\r\nHost: localhost\r\n{SECRET} x: y\r\n\r\n",
    "a header with NUL": f"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {SECRET}\0\r\n\r\n",
    "two keys": f"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: {SECRET}\r\n\r\n",
    "a line too long": f"GET {LINK}{SECRET * 1000} HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a header too long": f"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: {SECRET * 1000}\r\n\r\n",
    "a folded line": f"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer\r\n {SECRET}\r\n\r\n",
    "a target without a slash": f"GET {LINK[1:]} HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no host": f"GET {LINK} HTTP/1.1\r\n\r\n",
    "two hosts": f"GET {LINK} HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "two lengths": f"POST {LINK} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "two ends": f"POST {LINK} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "lines that end in LF": f"GET {LINK} HTTP/1.1\nHost: localhost\n\n",
    "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": "\x16\x03\x01\x02\0\x01\0\x01\u00fc\x03\x03\r\n\r\n",
}


@pytest.mark.parametrize("request_text", MALFORMED.values(), ids=MALFORMED)
@on_one_loop
async def test_what_the_parser_refuses_is_logged_without_a_secret_and_counted(
    service: Running, request_text: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = await count(service, "400")
    with caplog.at_level(logging.INFO):
        answer = await service.raw(request_text.encode("latin-1"))
    mark = assert_problem(answer, 400, "malformed_request")["request_id"]
    [line] = [record.getMessage() for record in caplog.records if "malformed" in record.getMessage()]
    assert "127.0.0.1" in line
    assert line.isprintable()
    assert SECRET[:12] not in caplog.text
    assert mark
    assert await count(service, "400") == before + 1


async def count(service: Running, status: str) -> float:
    return await service.counter(f'image_export_requests_total{{method="other",route="other",status="{status}"}}')


@pytest.mark.parametrize("method", [*sorted(hdrs.METH_ALL - {"GET", "HEAD", "CONNECT"}), "PROPFIND", "PURGE", "QUERY"])
@on_one_loop
async def test_a_method_that_the_parser_knows_and_the_route_does_not_is_405(service: Running, method: str) -> None:
    """The parser (llhttp) refuses other methods before it has read a path: a 400, see MALFORMED."""
    answer = await service.raw(f"{method} /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD"


@on_one_loop
async def test_a_key_in_an_unreadable_request_reaches_no_log(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    service = await serve(api_keys=SECRET, cors_origins="https://app.example")
    raw = f"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {SECRET}\r\nBad Header: x\r\n\r\n"
    with caplog.at_level(logging.DEBUG):
        assert_problem(await service.raw(raw.encode()), 400, "malformed_request")
    assert SECRET[:12] not in caplog.text


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("encoding", ["chunked", "identity", "gzip, chunked", ""])
@on_one_loop
async def test_http_1_0_with_a_transfer_encoding_is_refused(service: Running, method: str, encoding: str) -> None:
    path = "/api/exports" if method == "POST" else "/healthz"
    body = form(upload(picture_bytes()))
    second = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = (
        f"{method} {path} HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\nTransfer-Encoding: {encoding}\r\n"
        "Content-Type: multipart/form-data; boundary=----the-boundary\r\n\r\n"
    )
    with service.nothing_spent_or_left():
        async with service.connected() as (reader, writer):
            writer.write(head.encode() + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) + second)
            async with asyncio.timeout(20):
                answer = await reader.read()
    assert re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer) == [b"400"]


@on_one_loop
async def test_http_0_9_is_refused(service: Running) -> None:
    async with service.connected() as (reader, writer):
        writer.write(b"GET /healthz\r\n\r\n")
        async with asyncio.timeout(20):
            assert b"malformed_request" in await reader.read()


@on_one_loop
async def test_http_1_0_is_answered(service: Running) -> None:
    answer = await service.raw(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert answer.status == 200
    body = form(upload(picture_bytes()), ("formats", "jpeg"))
    head = f"POST /api/exports HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    kind = "Content-Type: multipart/form-data; boundary=----the-boundary\r\n\r\n"
    assert (await service.raw(head.encode() + kind.encode() + body)).status == 200


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [("POST", "/api/exports", "/api/exports"), ("GET", "/healthz", "/healthz"), ("POST", "/nowhere", "other")],
)
@on_one_loop
async def test_an_expectation_that_is_refused_is_logged_and_counted(
    service: Running, method: str, path: str, route: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = f'image_export_requests_total{{method="{method}",route="{route}",status="417"}}'
    before = await service.counter(name)
    with caplog.at_level(logging.INFO):
        answer = await service.ask(method, path, headers={"Expect": "more"})
    assert_problem(answer, 417, "expectation_failed")
    assert [record.getMessage() for record in caplog.records if " 417 " in record.getMessage()]
    assert await service.counter(name) == before + 1


# Listening


def reached(listeners: list[socket.socket], *hosts: str) -> list[bool]:
    """Whether each host accepts connections; closes the listeners."""
    port = listeners[0].getsockname()[1]
    try:
        for listener in listeners:
            listener.listen()
        return [_reached(host, port) for host in hosts]
    finally:
        for listener in listeners:
            listener.close()


def _reached(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=20).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")


@needs_ipv6
@pytest.mark.parametrize("host", ["::", "::0", "0:0:0:0:0:0:0:0"])
def test_the_ipv6_wildcard_takes_both_stacks(host: str) -> None:
    assert reached(open_sockets(host, 0), "127.0.0.1", "::1") == [True, True]


@needs_ipv6
def test_other_addresses_take_their_own_stack() -> None:
    assert reached(open_sockets("::1", 0), "127.0.0.1", "::1") == [False, True]
    assert reached(open_sockets("127.0.0.1", 0), "127.0.0.1", "::1") == [True, False]
    assert reached(open_sockets("0.0.0.0", 0), "127.0.0.1", "::1") == [True, False]


@needs_ipv6
def test_an_ipv4_address_in_ipv6_notation_is_loopback() -> None:
    assert reached(open_sockets("::ffff:127.0.0.1", 0), "127.0.0.1") == [True]
    assert is_loopback("::ffff:127.0.0.1")
    assert not is_loopback("::ffff:10.0.0.1")
    assert not is_loopback("::")


def test_a_name_listens_on_each_of_its_addresses() -> None:
    listeners = open_sockets("localhost", 0)
    found = {address[0] for *_, address in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    assert {listener.getsockname()[0] for listener in listeners} <= found
    assert reached(listeners, "localhost") == [True]


@needs_ipv6
@on_one_loop
async def test_the_service_answers_on_both_stacks(make_settings: MakeSettings) -> None:
    """Through the whole start, as `HOST=::` does it."""
    settings = make_settings(host="::", allow_anonymous=True)
    async with running(settings, QuickEmulator(), settings.host) as service, aiohttp.ClientSession() as client:
        for host in ("127.0.0.1", "[::1]"):
            async with client.get(f"http://{host}:{service.port}/metrics") as answer:
                assert answer.status == 200


@pytest.mark.parametrize("host", ["203.0.113.9", "2001:db8::9"])
async def test_an_address_of_another_machine_is_one_line_and_no_start(tmp_path: Path, host: str) -> None:
    environment = {"PATH": "", "HOST": host, "ALLOW_ANONYMOUS": "true", "STORAGE_DIR": str(tmp_path)}
    environment |= {"GEMINI_API_KEY": "a-key", "PORT": "0"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", "serve", env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == 2, errors
    [line] = errors.decode().splitlines()
    assert f"HOST={host!r}" in line
