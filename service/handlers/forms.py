"""Reads the fields of a body, whatever its type: multipart, with files, or JSON or urlencoded, without."""

import contextlib
from collections.abc import AsyncIterator, Collection

from aiohttp import web

from service.errors import UnsupportedMediaType
from service.handlers.multipart import Form, open_multipart
from service.schemas.collecting import Collected
from service.schemas.json_body import read_json
from service.schemas.json_fields import fields_of_json
from service.schemas.media_types import JSON, MULTIPART, URLENCODED
from service.schemas.urlencoded import fields_of_urlencoded
from service.server.receiving import check_charset, media_type, receive_small

TYPES = (MULTIPART, JSON, URLENCODED)


@contextlib.asynccontextmanager
async def open_form(request: web.Request, collected: Collected, types: Collection[str] = TYPES) -> AsyncIterator[Form]:
    """Read the body; raises RequestError for bad input, and Busy, Draining, StorageFull, StorageUnavailable.

    Uploads are locked against sweeps while the context is open, and removed with it unless the form is kept.
    """
    kind, parameters = media_type(request)
    if kind not in types:
        raise UnsupportedMediaType(f"send the fields as {' or '.join(types)}")
    if kind == MULTIPART:
        async with open_multipart(request, parameters, collected) as form:
            yield form
        return
    check_charset(parameters)
    body = await receive_small(request)
    yield Form(
        fields_of_json(read_json(body), collected) if kind == JSON else fields_of_urlencoded(body, collected), {}, {}
    )
