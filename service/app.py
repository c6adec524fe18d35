"""The whole service on one screen."""

from aiohttp import web

from service.handlers.downloads import download_signed, download_static
from service.handlers.exports import create_exports
from service.handlers.operations import healthz, metrics, readyz
from service.handlers.studio import show_studio, show_studio_file
from service.handlers.thumbnails import create_thumbnails
from service.metrics import Metrics
from service.server.keys import METRICS, SETTINGS
from service.server.lifespan import CONTEXTS
from service.server.middlewares import MIDDLEWARES, expect_continue, sign_answer
from service.settings import Settings


def create_app(settings: Settings) -> web.Application:
    """The app; raises SettingsError when it could not do its work."""
    settings.require_guarded()
    settings.require_gemini()
    app = web.Application(middlewares=MIDDLEWARES)
    app[SETTINGS] = settings
    app[METRICS] = Metrics()
    app.cleanup_ctx.extend(CONTEXTS)
    app.on_response_prepare.append(sign_answer)
    app.add_routes([
        web.post("/api/thumbnails", create_thumbnails, name="thumbnails", expect_handler=expect_continue),
        web.post("/api/exports", create_exports, name="exports", expect_handler=expect_continue),
        web.get("/static/output/{name}", download_static, name="static"),
        web.get("/api/download/{name}", download_signed, name="signed"),
        web.get("/healthz", healthz, name="healthz"),
        web.get("/readyz", readyz, name="readyz"),
        web.get("/metrics", metrics, name="metrics"),
        web.get("/", show_studio, name="studio"),
        web.get("/studio/{name}", show_studio_file, name="studio_file"),
    ])  # fmt: skip
    return app
