"""The description of the API: `/openapi.json`, and `/docs`, the same as a page."""

import hashlib
import json
from collections.abc import Iterable, Mapping

from aiohttp import web

from service.handlers.conditions import is_unchanged
from service.schemas.openapi.document import describe
from service.server.keys import DESCRIPTION
from service.server.measuring import VERSION
from service.server.routes import Route
from service.settings import Settings


def describe_api(routes: Iterable[Route], settings: Settings) -> bytes:
    """The description of these routes as JSON."""
    document = describe(routes, settings, VERSION)
    return json.dumps(document, ensure_ascii=False).encode()


async def show_openapi(request: web.Request) -> web.StreamResponse:
    return _unless_unchanged(request, request.app[DESCRIPTION], {"Content-Type": "application/json"})


def _unless_unchanged(request: web.Request, body: bytes, headers: Mapping[str, str]) -> web.Response:
    """200, or 304 if the client has it already."""
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    validators = {"ETag": etag, "Cache-Control": "no-cache"}
    if is_unchanged(request, etag):
        return web.Response(status=304, headers=validators)
    return web.Response(body=body, headers={**validators, **headers})
