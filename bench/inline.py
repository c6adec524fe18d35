"""A peer to compare with: the simplest exporter, Pillow in an aiohttp handler, on the event loop."""

import argparse
import io
import secrets
from pathlib import Path

from aiohttp import web
from PIL import Image, ImageOps

from bench.workload import SHARE, SIZE

FOLDER = web.AppKey("folder", Path)
MAX_BODY = 64 * 1024 * 1024


async def export(request: web.Request) -> web.Response:
    form = await request.post()
    picture = _opened(form["image"])
    if "base" in form:
        picture = Image.blend(_opened(form["base"]), picture, SHARE)
    stem = request.app[FOLDER] / secrets.token_hex(16)
    picture.save(f"{stem}.png", "PNG", compress_level=9)
    picture.save(f"{stem}.jpg", "JPEG", quality=85)
    picture.save(f"{stem}.webp", "WEBP", quality=80)
    sizes = {suffix: Path(f"{stem}.{suffix}").stat().st_size for suffix in ("png", "jpg", "webp")}
    return web.json_response({"exports": {suffix: {"size": size} for suffix, size in sizes.items()}})


def _opened(field: object) -> Image.Image:
    if not isinstance(field, web.FileField):
        raise web.HTTPBadRequest
    image = Image.open(io.BytesIO(field.file.read())).convert("RGB")
    return ImageOps.fit(image, SIZE, Image.Resampling.LANCZOS)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    app = web.Application(client_max_size=MAX_BODY)
    app[FOLDER] = options.folder
    app.add_routes([web.post("/", export)])
    web.run_app(app, host="127.0.0.1", port=options.port, access_log=None, print=lambda *_: None)


if __name__ == "__main__":
    main()
