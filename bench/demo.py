"""The first request of the README: start the service, ask for two variations, check each download, print the links."""

import asyncio
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp
from PIL import Image

START_SECONDS = 60
EXPECTED_SIZE = (1280, 720)
BASE = Path(__file__).parents[1] / "docs/base.png"


async def main() -> int:
    address = f"http://127.0.0.1:{os.environ.get('PORT', '8000')}"
    server = await asyncio.create_subprocess_exec(sys.executable, "-m", "service", "serve")
    try:
        async with aiohttp.ClientSession(address) as session:
            await _until_ready(session, server)
            answer = await _ask(session)
            exports = [export for variation in answer["variations"] for export in variation["exports"].values()]
            for export in exports:
                await _check(session, export)
                print(urljoin(address, export["url"]))
    finally:
        if server.returncode is None:
            server.send_signal(signal.SIGTERM)
        await server.wait()
    print(f"{len(exports)} exports of {len(answer['variations'])} variations, each {EXPECTED_SIZE}", file=sys.stderr)
    return 0 if len(exports) == 6 else 1


async def _until_ready(session: aiohttp.ClientSession, server: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(START_SECONDS):
        while server.returncode is None:
            try:
                async with session.get("/readyz") as answer:
                    if answer.ok:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.1)
    raise SystemExit("the service did not start")


async def _ask(session: aiohttp.ClientSession) -> dict[str, Any]:
    """The answer to a script and a base picture, for two variations."""
    form = aiohttp.FormData({"script": "My awesome video", "aspect_ratio": "16:9", "count": "2"})
    form.add_field("image", BASE.read_bytes(), filename="base.png", content_type="image/png")
    headers = {"Authorization": f"Bearer {os.environ.get('API_KEYS', '').partition(',')[0]}"}
    async with session.post("/api/thumbnails", data=form, headers=headers) as answer:
        body: dict[str, Any] = await answer.json(content_type=None)
        if not answer.ok:
            raise SystemExit(f"{answer.status}: {body}")
        return body


async def _check(session: aiohttp.ClientSession, export: dict[str, Any]) -> None:
    async with session.get(export["url"]) as answer:
        data = await answer.read()
    picture = Image.open(io.BytesIO(data))
    picture.load()
    if (answer.status, answer.content_type, picture.size) != (200, export["content_type"], EXPECTED_SIZE):
        raise SystemExit(f"{export['url']}: {answer.status} {answer.content_type} {picture.size}")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
