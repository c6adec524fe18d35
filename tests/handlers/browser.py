"""A real browser for the studio page, driven over its DevTools protocol."""

import asyncio
import base64
import itertools
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.helpers import Running, until

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--remote-debugging-port=0",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,900",
)  # fmt: skip


class Tab:
    """A browser page: runs scripts and takes screenshots."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            answer: dict[str, Any] = await self._socket.receive_json(timeout=60)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    async def run(self, script: str) -> Any:
        """The value of an expression, awaited if it is a promise."""
        answer = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def wait_for(self, script: str) -> None:
        async with asyncio.timeout(30):
            while not await self.run(f"Boolean({script})"):
                await asyncio.sleep(0.02)

    async def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode((await self.send("Page.captureScreenshot"))["data"]))


Visit = Callable[[Running], Awaitable[Tab]]


@asynccontextmanager
async def opened(url: str, folder: Path) -> AsyncIterator[Tab]:
    """A page in a new browser; skips the test if no browser is installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not program:
        pytest.skip("no browser is installed")
    process = await asyncio.create_subprocess_exec(
        program, *FLAGS, f"--user-data-dir={folder}", url,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port_file = folder / "DevToolsActivePort"
        await until(lambda: port_file.exists() and port_file.read_text().count("\n"), 60)
        port = port_file.read_text().splitlines()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                [target] = [each for each in await answer.json() if each["type"] == "page"]
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Tab(socket)
    finally:
        process.terminate()
        await process.wait()


CHOOSE = """(() => {
  const input = document.getElementById("image"), files = new DataTransfer();
  files.items.add(new File([new Uint8Array(%s)], "picture"));
  input.files = files.files;
  input.dispatchEvent(new Event("change"));
})()"""


async def choose_file(tab: Tab, data: bytes) -> None:
    """Choose a file named "picture" as the base."""
    await tab.run(CHOOSE % list(data))


async def generate(tab: Tab, count: int = 1, script: str = "A title") -> None:
    """Fill the studio's form and press Generate."""
    await tab.run(
        f"at = (id) => document.getElementById(id); at('count').value = {count}; at('script').value = {script!r};"
        "at('script').dispatchEvent(new Event('input')); at('order').requestSubmit(); 0"
    )


async def cards(tab: Tab, state: str) -> int:
    found: int = await tab.run(f"document.querySelectorAll('.card.{state}').length")
    return found


async def press(tab: Tab, words: str) -> None:
    """Press the first button with these words that is shown."""
    buttons = "[...document.querySelectorAll('button')].filter((each) => each.checkVisibility())"
    await tab.run(f"{buttons}.find((each) => each.textContent === {words!r}).click()")
