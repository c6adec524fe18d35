"""The aiohttp application: the table of routes, middlewares and cleanup contexts."""

from aiohttp import web

from service.handlers.description import DESCRIPTION, describe_api, show_docs, show_openapi
from service.handlers.downloads import download_signed, download_static
from service.handlers.events import follow_events
from service.handlers.exports import create_exports
from service.handlers.openai import edit_images, generate_images, list_models, show_model
from service.handlers.operations import healthz, metrics, readyz
from service.handlers.raws import download_raw, export_again
from service.handlers.requests import cancel_request, delete_request, list_requests, show_request
from service.handlers.studio import show_studio, show_studio_file
from service.handlers.thumbnails import create_thumbnails
from service.handlers.usage import show_usage
from service.server.keys import ROUTES, SETTINGS
from service.server.lifespan import CONTEXTS
from service.server.measuring import set_up_metrics
from service.server.middlewares import MIDDLEWARES, add_common_headers
from service.server.routes import Route
from service.settings import Settings

VARIATION = "/api/thumbnails/{request_id}/variations/{variation_id}"

# A route is guarded unless it says otherwise.
TABLE = (
    Route("POST", "/api/thumbnails", create_thumbnails, "thumbnails", admission="thumbnails"),
    Route("POST", "/api/exports", create_exports, "exports", admission="exports"),
    Route("GET", "/api/thumbnails", list_requests, "requests", head=False),
    Route("GET", "/api/thumbnails/{request_id}", show_request, "request", head=False),
    Route("DELETE", "/api/thumbnails/{request_id}", delete_request, "delete"),
    Route("POST", "/api/thumbnails/{request_id}/cancel", cancel_request, "cancel"),
    Route("GET", "/api/thumbnails/{request_id}/events", follow_events, "events", admission="download", head=False),
    Route("POST", f"{VARIATION}/exports", export_again, "export_again", admission="exports"),
    Route("GET", f"{VARIATION}/raw", download_raw, "raw", admission="download"),
    Route("GET", "/api/usage", show_usage, "usage", head=False),
    Route("POST", "/v1/images/generations", generate_images, "openai_generations", admission="thumbnails"),
    Route("POST", "/v1/images/edits", edit_images, "openai_edits", admission="thumbnails"),
    Route("GET", "/v1/models", list_models, "openai_models", head=False),
    Route("GET", "/v1/models/{id}", show_model, "openai_model", head=False),
    Route("GET", "/static/output/{name}", download_static, "static", admission="download", access="open"),
    Route("GET", "/api/download/{name}", download_signed, "signed", admission="download", access="open"),
    Route("GET", "/healthz", healthz, "healthz", access="open"),
    Route("GET", "/readyz", readyz, "readyz", access="open"),
    Route("GET", "/metrics", metrics, "metrics"),
    Route("GET", "/", show_studio, "studio", access="page"),
    Route("GET", "/openapi.json", show_openapi, "openapi", access="page"),
    Route("GET", "/docs", show_docs, "docs", access="page"),
    Route("GET", "/studio/{name}", show_studio_file, "studio_file", access="page"),
)


def create_app(settings: Settings) -> web.Application:
    """The app; raises SettingsError for settings with which it cannot run."""
    settings.check(serves=True, draws=True)
    app = web.Application(middlewares=MIDDLEWARES)
    app[SETTINGS] = settings
    set_up_metrics(app)
    app[DESCRIPTION] = describe_api(TABLE, settings)
    app.cleanup_ctx.extend(CONTEXTS)
    app.on_response_prepare.append(add_common_headers)
    definitions = [route.definition() for route in TABLE]
    app[ROUTES] = {added.resource: route for added, route in zip(app.add_routes(definitions), TABLE, strict=True)}
    return app
