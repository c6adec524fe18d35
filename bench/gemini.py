"""A Gemini that answers at once with plain pictures, as a process: `python -m bench.gemini PORT DELAY_SECONDS`.

It takes little CPU beside the service that is measured: every reply is made beforehand, and no request is parsed.
"""

import asyncio
import base64
import itertools
import json
import sys
import time
from collections.abc import Iterator

from aiohttp import web
from PIL import Image

from bench.workload import DRAWN, png_bytes

COLOURS = 16
TOKENS = 1120


class Gemini:
    """Notes when each request was there, by the clock that all processes share."""

    def __init__(self, delay_seconds: float) -> None:
        self._delay = delay_seconds
        self._replies: Iterator[bytes] = itertools.cycle([_reply(number) for number in range(COLOURS)])
        self._arrivals: list[float] = []

    def create_app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.add_routes([web.post("/{path:.*}", self._generate), web.get("/arrivals", self._get_arrivals)])
        return app

    async def _generate(self, request: web.Request) -> web.Response:
        await request.read()
        self._arrivals.append(time.monotonic())
        await asyncio.sleep(self._delay)
        return web.Response(body=next(self._replies), content_type="application/json")

    async def _get_arrivals(self, _: web.Request) -> web.Response:
        """The times since the last time they were asked for."""
        arrivals, self._arrivals = self._arrivals, []
        return web.json_response(arrivals)


def _reply(number: int) -> bytes:
    colour = (number * 255 // COLOURS, 64, 128)
    data = base64.b64encode(png_bytes(Image.new("RGB", DRAWN, colour))).decode()
    part = {"inlineData": {"mimeType": "image/png", "data": data}}
    usage = {
        "promptTokenCount": 100,
        "candidatesTokenCount": TOKENS,
        "totalTokenCount": TOKENS + 100,
        "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": TOKENS}],
    }
    candidate = {"content": {"parts": [part], "role": "model"}, "finishReason": "STOP", "index": 0}
    return json.dumps({"candidates": [candidate], "usageMetadata": usage}).encode()


if __name__ == "__main__":
    port, delay = int(sys.argv[1]), float(sys.argv[2])
    web.run_app(Gemini(delay).create_app(), host="127.0.0.1", port=port, backlog=4096, access_log=None, print=None)
