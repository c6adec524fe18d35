"""Animations as Chromium decodes them: what Pillow reads of the same files, with the same times and repeats."""

import base64
import itertools
import shutil
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from service.imaging.animated import encode_animation
from service.imaging.formats import TABLE, AvifEncoding, Encoding, GifEncoding, PngEncoding, WebpEncoding
from service.imaging.timing import Timing
from tests.handlers.browser import opened
from tests.imaging import moving
from tests.imaging.moving import largest_error, played

PAGE = Path(__file__).with_name("decode.html")
DURATIONS = (100, 40, 70, 1000)
FORMATS: dict[str, Encoding] = {
    "png": PngEncoding(),
    "palette": PngEncoding(palette=True),
    "webp": WebpEncoding(),
    "lossless": WebpEncoding(lossless=True),
    "avif": AvifEncoding(),
    "gif": GifEncoding(),
}
SCENES = (moving.panned, moving.rolled, moving.sprites, moving.drawn)


class Quiet(SimpleHTTPRequestHandler):
    extensions_map = {row.suffix: row.mime for row in TABLE.values()} | {".html": "text/html"}

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    shutil.copy(PAGE, tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def on_black(image: Image.Image) -> Image.Image:
    """A canvas keeps colours multiplied by alpha, so the colour of what is nearly transparent is lost."""
    return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)


@pytest.mark.parametrize("scenes", [SCENES[:1], pytest.param(SCENES[1:], marks=pytest.mark.slow)])
async def test_chromium_shows_what_was_encoded(address: str, tmp_path: Path, scenes: Sequence[moving.Scene]) -> None:
    async with opened(f"{address}/{PAGE.name}", tmp_path) as tab:
        await tab.wait_for("window.decoded")
        for scene, (name, encoding) in itertools.product(scenes, FORMATS.items()):
            frames = scene(len(DURATIONS))
            file = f"{scene.__name__}-{name}{TABLE[encoding.format].suffix}"
            data = encode_animation(frames, Timing(DURATIONS, plays=3), encoding, (255, 255, 255))
            (tmp_path / file).write_bytes(data)
            read = await tab.run(f"decoded({file!r})")
            assert read["repeats"] == ("for ever" if encoding.format == "avif" else 2), file
            assert [frame["microseconds"] for frame in read["frames"]] == [1000 * each for each in DURATIONS], file
            for shown, ours in zip(read["frames"], played(data).frames, strict=True):
                other = Image.frombytes("RGBA", ours.size, base64.b64decode(shown["rgba"]))
                assert largest_error(on_black(ours), on_black(other)) <= 3, file
