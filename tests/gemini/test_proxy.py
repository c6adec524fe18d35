"""Gemini behind a real proxy on loopback, with CONNECT and with absolute URLs."""

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from service.errors import GeminiTimeout, GeminiUnavailable, SettingsError
from service.gemini.call import Call
from service.gemini.client import GeminiAccess, GeminiService, open_gemini
from service.gemini.proxy import proxy_for
from service.server.connections import listening
from tests.helpers import KEY, QuickEmulator, until

CALL = Call("gemini-nano-banana-2.1", "a prompt", "1:8", "1K")
PASSWORD = "pass%40word"


@dataclass
class Proxy:
    """Records requests and forwards them to `target`, or refuses them; with neither, it does not respond."""

    target: tuple[str, int] | None
    refusal: bytes = b""
    asked: list[bytes] = field(default_factory=list)
    port: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with closed(writer):
            self.asked.append(head := await reader.readuntil(b"\r\n\r\n"))
            if self.refusal:
                writer.write(self.refusal)
            elif self.target:
                await self._forward(head, self.target, reader, writer)
            else:
                await reader.read()

    async def _forward(
        self, head: bytes, target: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        there, out = await asyncio.open_connection(*target)
        async with closed(out):
            tunnel = head.startswith(b"CONNECT")
            (writer if tunnel else out).write(b"HTTP/1.1 200 Connected\r\n\r\n" if tunnel else head)
            await asyncio.gather(pump(reader, out), pump(there, writer))

    @property
    def lines(self) -> list[str]:
        return [head.decode().partition("\r\n")[0] for head in self.asked]


@contextlib.asynccontextmanager
async def closed(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        try:
            yield
        finally:
            writer.close()
            await writer.wait_closed()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def proxying(target: tuple[str, int] | None = None, refusal: bytes = b"") -> AsyncIterator[Proxy]:
    proxy = Proxy(target, refusal)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    yield proxy
    server.close()
    for task in proxy.tasks:
        task.cancel()
    await asyncio.gather(*proxy.tasks, return_exceptions=True)


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A certificate for gemini.test that the client trusts."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=gemini.test", "-addext", "subjectAltName=DNS:gemini.test", "-keyout", str(key),
         "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return context


@contextlib.asynccontextmanager
async def over_tls(app: web.Application, context: ssl.SSLContext) -> AsyncIterator[tuple[str, int]]:
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    yield runner.addresses[0][:2]
    await runner.cleanup()


@contextlib.asynccontextmanager
async def gemini_at(**options: Any) -> AsyncIterator[GeminiService]:
    """A client for an emulator."""
    async with contextlib.AsyncExitStack() as stack:
        [(host, port)] = await stack.enter_async_context(listening(QuickEmulator().create_app(), "127.0.0.1", 0))
        yield await stack.enter_async_context(open_gemini(GeminiAccess(KEY, f"http://{host}:{port}", **options)))


async def test_https_is_tunnelled_with_user_and_password(
    certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    emulator = QuickEmulator(api_key=KEY)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine gemini.test login nobody password nothing\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with over_tls(emulator.create_app(), certificate) as address, proxying(address) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:{PASSWORD}@127.0.0.1:{proxy.port}")
        async with open_gemini(GeminiAccess(KEY, "https://gemini.test")) as gemini:
            assert (await gemini.generate_image(CALL)).picture
    assert proxy.lines == ["CONNECT gemini.test:443 HTTP/1.1"]
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNzQHdvcmQ=" in proxy.asked[0]
    assert KEY.encode() not in proxy.asked[0]
    assert "authorization" not in emulator.received[0].headers


async def test_http_is_forwarded_by_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    emulator = QuickEmulator()
    async with listening(emulator.create_app(), "127.0.0.1", 0) as [address], proxying(address) as proxy:
        monkeypatch.setenv("http_proxy", f"127.0.0.1:{proxy.port}")
        async with open_gemini(GeminiAccess(KEY, "http://gemini.test")) as gemini:
            assert (await gemini.generate_image(CALL)).picture
    assert proxy.lines == [f"POST http://gemini.test/v1/models/{CALL.model}:generateContent HTTP/1.1"]


@pytest.mark.parametrize("no_proxy", ["*", "127.0.0.1", "example.com, 127.0.0.1"])
async def test_no_proxy_is_honoured(monkeypatch: pytest.MonkeyPatch, no_proxy: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    async with gemini_at(retry=0) as gemini:
        assert (await gemini.generate_image(CALL)).picture


async def test_the_local_emulator_is_called_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "not even an address://")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    async with gemini_at(local=True) as gemini:
        assert (await gemini.generate_image(CALL)).picture


@pytest.mark.parametrize(
    "refusal",
    [
        b"HTTP/1.1 407 Say \x1b[31mplease\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nNo.",
        b"HTTP/1.1 302 There\r\nLocation: http://127.0.0.1:9/\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
        b"HTTP/1.1 504 Gateway Timeout\r\n\r\n",
        b"this is no proxy\r\n\r\n",
        b" ",
    ],
)
async def test_a_refused_tunnel_is_unbilled_and_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch, refusal: bytes
) -> None:
    async with proxying(("127.0.0.1", 9), refusal) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:{PASSWORD}@127.0.0.1:{proxy.port}")
        async with open_gemini(GeminiAccess(KEY, "https://gemini.test", retry=0)) as gemini:
            with pytest.raises(GeminiUnavailable) as caught:
                await gemini.generate_image(CALL)
    assert caught.value.billed is False
    assert "user" not in caught.value.detail
    assert "word" not in caught.value.detail
    assert len(proxy.asked) == 1


async def test_a_refused_tunnel_is_retried_within_the_budget(
    certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, refusal = QuickEmulator().create_app(), b"HTTP/1.1 503 Not yet\r\n\r\n"
    async with over_tls(app, certificate) as address, proxying(address, refusal) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        async with open_gemini(GeminiAccess(KEY, "https://gemini.test", retry=30)) as gemini:
            drawing = asyncio.create_task(gemini.generate_image(CALL))
            await until(lambda: proxy.asked)
            proxy.refusal = b""
            assert (await drawing).picture


async def test_a_plain_request_that_the_proxy_refuses_is_unbilled(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
    async with proxying(("127.0.0.1", 9), refusal) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        async with open_gemini(GeminiAccess(KEY, "http://gemini.test", retry=0)) as gemini:
            with pytest.raises(GeminiUnavailable) as caught:
                await gemini.generate_image(CALL)
    assert caught.value.billed is False


async def test_a_proxy_that_is_down_is_unbilled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{PASSWORD}@127.0.0.1:9")
    async with open_gemini(GeminiAccess(KEY, "https://gemini.test", retry=0)) as gemini:
        with pytest.raises(GeminiUnavailable) as caught:
            await gemini.generate_image(CALL)
    assert caught.value.billed is False


async def test_a_tunnel_that_hangs_is_unbilled(monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxying() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        async with open_gemini(GeminiAccess(KEY, "https://gemini.test", timeout=0.3)) as gemini:
            with pytest.raises(GeminiTimeout) as caught:
                await gemini.generate_image(CALL)
    assert caught.value.billed is False


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "https://gemini.test/", None),
        ({"HTTPS_PROXY": "proxy:3128"}, "https://gemini.test/", "http://proxy:3128"),
        ({"HTTPS_PROXY": "https://proxy"}, "https://gemini.test/v1", "https://proxy"),
        ({"HTTPS_PROXY": "http://proxy"}, "http://gemini.test/", None),
        ({"HTTP_PROXY": "http://u:p@[::1]:1"}, "http://gemini.test:8000/", "http://u:p@[::1]:1"),
        ({"HTTPS_PROXY": "http://proxy", "NO_PROXY": "test"}, "https://gemini.test/", None),
        ({"HTTPS_PROXY": "http://proxy", "no_proxy": ".gemini.test,x"}, "https://gemini.test/", None),
        ({"HTTP_PROXY": "http://proxy", "NO_PROXY": "127.0.0.1:80"}, "http://127.0.0.1:81/", "http://proxy"),
        ({"HTTP_PROXY": "http://proxy", "NO_PROXY": "127.0.0.1:81"}, "http://127.0.0.1:81/", None),
    ],
)
def test_the_proxy_of_a_url(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str, proxy: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = proxy_for(url)
    assert (found and str(found)) == proxy


@pytest.mark.parametrize(
    "proxy", ["socks5://user:hunter2@proxy", "http://user:hunter2@proxy:0x1", "http://:80", "http://€:€@proxy"]
)
def test_an_invalid_proxy_prevents_the_start_and_is_not_shown(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(SettingsError, match=r"^HTTPS_PROXY is not allowed") as caught:
        proxy_for("https://gemini.test/")
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)
