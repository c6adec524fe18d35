"""The studio: the web page at `/` and its static files."""

import json
from importlib.resources import files
from typing import Any, Final

from aiohttp import web

from service.budgets import MAX_BYTES
from service.error_codes import classes
from service.errors import NotFound, ServiceError
from service.gemini import models
from service.imaging.formats import FORMATS, READABLE, SNIFF_BYTES, TABLE
from service.imaging.frame import MAX_SIDE
from service.schemas.table import MAX_SCRIPT
from service.server.keys import SETTINGS
from service.settings import Settings

_ROOT = files("service.studio")
_TYPES: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_PAGES: Final = {entry.name: entry.read_bytes() for entry in _ROOT.iterdir() if entry.name.rpartition(".")[2] in _TYPES}
_POLICY: Final = (
    "default-src 'self'; img-src 'self' blob: https: http:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    # With no-referrer some browsers send "Origin: null", which the guard refuses.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
CONFIG_MARK: Final = b"{{config}}"


async def show_studio(request: web.Request) -> web.StreamResponse:
    """The page, with the service's limits and models as JSON."""
    # Escape "<", so that no value can close the script element.
    text = json.dumps(_config(request.app[SETTINGS])).replace("<", "\\u003c").encode()
    return _page("index.html", _PAGES["index.html"].replace(CONFIG_MARK, text))


def _config(settings: Settings) -> dict[str, Any]:
    return {
        "emulator": settings.emulates,
        "needs_key": settings.needs_key,
        "max_script": MAX_SCRIPT,
        "max_side": MAX_SIDE,
        "max_variations": settings.max_variations,
        "max_upload_bytes": settings.max_upload_bytes,
        "output_retention_days": settings.output_retention_days,
        "sse_heartbeat_seconds": settings.sse_heartbeat_seconds,
        "titles": {kind.code: kind.title for kind in classes(ServiceError)},
        "png_compression": settings.png_compression,
        "jpeg_quality": settings.jpeg_quality,
        "webp_quality": settings.webp_quality,
        "avif_quality": settings.avif_quality,
        "max_bytes": MAX_BYTES,
        "matte": settings.matte,
        "formats": {name: TABLE[name].label for name in FORMATS},
        "default_formats": settings.formats,
        "pictures": {
            "named": READABLE,
            "types": [row.mime for row in TABLE.values() if row.reader],
            "sniff_bytes": SNIFF_BYTES,
            # As text, in which every character is a byte; JavaScript reads these patterns as Python does.
            "magic": {name: row.reader.magic.pattern.decode("latin-1") for name, row in TABLE.items() if row.reader},
        },
        "default_model": settings.gemini_model,
        "ratios": models.RATIOS,
        "sizes": models.SIZES,
        "models": {
            name: {"ratios": row.ratios, "sizes": row.sizes, "prices": dict(row.prices), "as_of": str(row.as_of)}
            for name, row in models.MODELS.items()
        },
    }


async def show_studio_file(request: web.Request) -> web.StreamResponse:
    name = request.match_info["name"]
    if name not in _PAGES or name == "index.html":
        raise NotFound("there is no such page")
    return _page(name, _PAGES[name])


def _page(name: str, body: bytes) -> web.Response:
    kind = _TYPES[name.rpartition(".")[2]]
    return web.Response(body=body, content_type=kind, charset="utf-8", headers=PAGE_HEADERS)
