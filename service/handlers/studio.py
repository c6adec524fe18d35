"""The web page at `/`: a form, the pictures as they come, their links."""

import json
from importlib.resources import files
from typing import Final

from aiohttp import web

from service.errors import NotFound
from service.gemini import models
from service.keys import SETTINGS

_ROOT = files("service.studio")
_TYPES: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_PAGES: Final = {entry.name: entry.read_bytes() for entry in _ROOT.iterdir() if entry.name.rpartition(".")[2] in _TYPES}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: https: http:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
CONFIG_MARK: Final = b"{{config}}"


async def show_studio(request: web.Request) -> web.StreamResponse:
    """The page, told what this service allows."""
    settings = request.app[SETTINGS]
    config = {
        "emulator": settings.emulates,
        "needs_key": bool(settings.api_keys),
        "max_variations": settings.max_variations,
        "max_upload_bytes": settings.max_upload_bytes,
        "default_model": settings.gemini_model,
        "models": {name: {"ratios": list(row.ratios), "sizes": list(row.sizes)} for name, row in models.MODELS.items()},
    }
    text = json.dumps(config).replace("<", "\\u003c").encode()
    return _page("index.html", _PAGES["index.html"].replace(CONFIG_MARK, text))


async def show_studio_file(request: web.Request) -> web.StreamResponse:
    name = request.match_info["name"]
    if name not in _PAGES or name == "index.html":
        raise NotFound("there is no such page")
    return _page(name, _PAGES[name])


def _page(name: str, body: bytes) -> web.Response:
    kind = _TYPES[name.rpartition(".")[2]]
    return web.Response(body=body, content_type=kind, charset="utf-8", headers=_HEADERS)
