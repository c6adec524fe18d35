"""Every frame beside what Chromium shows, by its ImageDecoder."""

import asyncio
import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from PIL import Image

from service.imaging.compose import composed
from service.imaging.probe import probe
from tests.handlers.browser import opened
from tests.imaging import animations
from tests.imaging.animations import Film, Layer, plain, random_film, worst

# The number of frames, of repetitions, and of each frame its duration in microseconds and its pixels.
DECODE = """(async () => {
  const data = Uint8Array.from(atob("%s"), (character) => character.charCodeAt(0));
  const decoder = new ImageDecoder({type: "%s", data, premultiplyAlpha: "none"});
  await decoder.tracks.ready;
  await decoder.completed;
  const track = decoder.tracks.selectedTrack, frames = [];
  for (let frameIndex = 0; frameIndex < track.frameCount; frameIndex++) {
    const {image} = await decoder.decode({frameIndex});
    const pixels = new Uint8Array(image.allocationSize({format: "RGBA"}));
    await image.copyTo(pixels, {format: "RGBA"});
    const text = Array.from(pixels, (byte) => String.fromCharCode(byte)).join("");
    frames.push({duration: image.duration, size: [image.displayWidth, image.displayHeight], pixels: btoa(text)});
  }
  return {repetitions: track.repetitionCount === Infinity ? -1 : track.repetitionCount, frames};
})()"""


def films(number: int) -> list[tuple[str, bytes]]:
    files = []
    for seed in range(number):
        files += [
            ("image/gif", animations.gif(random_film(seed, beyond=True, soft=False), interlaced=seed % 2 == 0)),
            ("image/png", animations.apng(random_film(seed))),
            ("image/webp", animations.webp(random_film(seed, even=True, previous=False))),
        ]
    apart = Film((9, 7), [Layer(plain((4, 3), "red"), 2, 2), Layer(plain((9, 7), (0, 0, 255, 99)))])
    return [*files, ("image/png", animations.apng(apart, default=plain((9, 7), "lime")))]


async def empty_page(request: web.Request) -> web.Response:
    return web.Response(text="<title>test</title>", content_type="text/html")


async def decoded_by_chromium(files: Sequence[tuple[str, bytes]], folder: Path) -> list[Any]:
    # An empty page of a local server: ImageDecoder is there in secure contexts only.
    app = web.Application()
    app.router.add_get("/", empty_page)
    async with TestServer(app) as server, opened(str(server.make_url("/")), folder) as tab:
        await tab.wait_for("document.title === 'test' && window.ImageDecoder")
        return [await tab.run(DECODE % (base64.b64encode(data).decode(), mime)) for mime, data in files]


@pytest.mark.parametrize("number", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_every_frame_is_what_chromium_shows(tmp_path: Path, number: int) -> None:
    files = films(number)
    for (mime, data), shown in zip(files, asyncio.run(decoded_by_chromium(files, tmp_path)), strict=True):
        animation = probe(data, 1_000_000).animation
        assert animation is not None
        timing = animation.timing
        assert shown["repetitions"] == timing.plays - 1
        assert [frame["duration"] for frame in shown["frames"]] == [1000 * each for each in timing.durations]
        for frame, ours in zip(shown["frames"], composed(animation), strict=True):
            theirs = Image.frombytes("RGBA", tuple(frame["size"]), base64.b64decode(frame["pixels"]))
            assert worst(ours, theirs) <= 3, mime
