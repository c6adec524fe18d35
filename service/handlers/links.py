"""Links of earlier exports, which expire before a sweep may remove the file."""

from collections.abc import Iterable
from datetime import datetime

from aiohttp import web

from service.imaging.formats import FORMATS
from service.ledger.rows import CallRow
from service.publishing import Export
from service.schemas.status import Link
from service.server.guard import requested_host
from service.server.keys import EXPORTS, SETTINGS
from service.store.layout import export_key

DAY_SECONDS = 86_400


async def link_of(request: web.Request, calls: Iterable[CallRow]) -> Link:
    """Links of the exports of these calls, as they are now; None for a file that is gone or about to go."""
    exports, settings = request.app[EXPORTS], request.app[SETTINGS]
    keys = [export_key(call.stem, each) for call in calls if call.state == "exported" for each in FORMATS]
    there = await exports.store.present(keys) if keys else frozenset()
    days = settings.output_retention_days
    kept = max(days * DAY_SECONDS, settings.url_signature_expiry if settings.sign_urls else 0) if days else None

    def link(export: Export) -> str | None:
        if export.file_path not in there:
            return None
        published = datetime.fromisoformat(export.exported_at).timestamp()
        return exports.links.rebuild(export.file_path.partition("/")[2], None if kept is None else published + kept)

    return link


def absolute(request: web.Request, url: str) -> str:
    """A link with the scheme and the Host of this request in front, unless PUBLIC_URL is there already."""
    return f"{request.scheme}://{requested_host(request)}{url}" if url.startswith("/") else url
