"""POST /api/exports: exports an uploaded picture, without Gemini."""

from aiohttp import web

from service.bases import Base
from service.errors import MissingField
from service.handlers.forms import open_form
from service.imaging.formats import READABLE
from service.schemas.answers import exports_answer
from service.schemas.collecting import Collected
from service.schemas.media_types import MULTIPART
from service.schemas.requests import PICTURE_FIELDS, read_export
from service.server.keys import ADMISSION, EXPORTS, NEW_ID, SETTINGS
from service.server.sending import answer


async def create_exports(request: web.Request) -> web.StreamResponse:
    """Export the uploaded picture, blended over `base` if one was uploaded."""
    settings, exports, admission = request.app[SETTINGS], request.app[EXPORTS], request.app[ADMISSION]
    async with open_form(request, Collected(PICTURE_FIELDS, ("image", "base")), types=(MULTIPART,)) as form:
        plan, encodings = read_export(form.fields, settings)
        image, base = form.uploads.get("image"), form.uploads.get("base")
        if image is None:
            raise MissingField(f"image is required: a {READABLE} picture")
        under = Base(base, required=True) if base else None
        with await admission.enter("exports"):
            exported = await exports.export_all(image, under, plan, encodings)
            form.keep = True
    return answer(exports_answer(request[NEW_ID], image.sha256, exported))
