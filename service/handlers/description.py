"""The description of the API: `/openapi.json`, and `/docs`, the same as a page."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from service.handlers.conditions import is_unchanged
from service.handlers.studio import PAGE_HEADERS
from service.schemas.openapi.document import describe
from service.schemas.openapi.page import page
from service.server.measuring import VERSION
from service.server.routes import Route
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Document:
    body: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Description:
    """The description of the API as JSON and as a page."""

    openapi: Document
    docs: Document


def describe_api(routes: Iterable[Route], settings: Settings) -> Description:
    described = describe(routes, settings, VERSION)
    return Description(_document(json.dumps(described, ensure_ascii=False)), _document(page(described)))


def _document(text: str) -> Document:
    body = text.encode()
    return Document(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


DESCRIPTION: Final = web.AppKey("description", Description)


async def show_openapi(request: web.Request) -> web.StreamResponse:
    return _unless_unchanged(request, request.app[DESCRIPTION].openapi, {"Content-Type": "application/json"})


async def show_docs(request: web.Request) -> web.StreamResponse:
    """The description as a page, under the policy of the studio's."""
    headers = {**PAGE_HEADERS, "Content-Type": "text/html; charset=utf-8"}
    return _unless_unchanged(request, request.app[DESCRIPTION].docs, headers)


def _unless_unchanged(request: web.Request, document: Document, headers: Mapping[str, str]) -> web.Response:
    """200, or 304 if the client has it already."""
    validators = {"ETag": document.etag, "Cache-Control": "no-cache"}
    if is_unchanged(request, document.etag):
        return web.Response(status=304, headers=validators)
    return web.Response(body=document.body, headers={**validators, **headers})
