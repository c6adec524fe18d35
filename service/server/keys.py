"""The AppKeys and RequestKeys."""

from typing import Final

from aiohttp import web

from service.callers import Caller
from service.exports import ImageExportService
from service.gemini.client import GeminiService
from service.jobs.jobs import JobService
from service.keyring import Keyring
from service.ledger.buckets import Buckets
from service.ledger.ledger import Ledger
from service.metrics import Metrics
from service.scheduler import Sweeper
from service.server.admission import Admission
from service.server.routes import Route
from service.settings import Settings
from service.store.hot import HotFiles
from service.thumbnails import ThumbnailService

SETTINGS: Final = web.AppKey("settings", Settings)
BUCKETS: Final = web.AppKey("buckets", Buckets)
KEYRING: Final = web.AppKey("keyring", Keyring)
METRICS: Final = web.AppKey("metrics", Metrics)
# aiohttp makes a resource for each name, which GET shares with its HEAD.
ROUTES: Final = web.AppKey("routes", dict[web.AbstractResource | None, Route])
ADMISSION: Final = web.AppKey("admission", Admission)
EXPORTS: Final = web.AppKey("exports", ImageExportService)
GEMINI: Final = web.AppKey("gemini", GeminiService)
HOT: Final = web.AppKey("hot", HotFiles)
LEDGER: Final = web.AppKey("ledger", Ledger)
JOBS: Final = web.AppKey("jobs", JobService)
THUMBNAILS: Final = web.AppKey("thumbnails", ThumbnailService)
SWEEPER: Final = web.AppKey("sweeper", Sweeper)

# Of the HTTP exchange, which a client may choose: it stands in the logs and in X-Request-Id only.
REQUEST_ID: Final = web.RequestKey("request_id", str)
# Always the service's own: names a new order, its files and uploads.
NEW_ID: Final = web.RequestKey("new_id", str)
# Set once an order is made or found: problems name it.
ORDER_ID: Final = web.RequestKey("order_id", str)
# The row of the requested route, or UNKNOWN.
ROUTE: Final = web.RequestKey("route", Route)
# Set by the guard: the API key's caller, which decides whose requests it may see.
CALLER: Final = web.RequestKey("caller", Caller)
