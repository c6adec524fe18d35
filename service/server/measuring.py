"""What the app's metrics are told: the callbacks of other parts, and the gauges that are read on each scrape."""

import math
import os
from importlib.metadata import PackageNotFoundError, version

from aiohttp import web

from service.callers import KEY_NAME
from service.exports import ExportEvents, ImageExportService
from service.gemini.models import MODELS
from service.metrics import CallReport, Metrics
from service.server.admission import Admission
from service.server.keys import METRICS, SETTINGS
from service.store import descriptors
from service.variations import EMULATOR_MODEL, Reports

_DISTRIBUTION = "image-export-pipeline"


def set_up_metrics(app: web.Application) -> None:
    """Create the app's metrics. Values of the label `model`: the known models, GEMINI_MODEL and the emulator."""
    app[METRICS] = Metrics(VERSION, [*MODELS, app[SETTINGS].gemini_model, EMULATOR_MODEL])


def _version() -> str:
    try:
        return version(_DISTRIBUTION)
    except PackageNotFoundError:
        # Run from a directory of sources that was not installed.
        return "unknown"


# Read once, at import: it reads files, and apps are created on the event loop.
VERSION = _version()


def export_events(metrics: Metrics) -> ExportEvents:
    return ExportEvents(metrics.warned, metrics.worker, metrics.step)


def reports(metrics: Metrics) -> Reports:
    """The callbacks of variations; their calls are counted for the API key that is set in their context."""

    def called(report: CallReport) -> None:
        metrics.called(report, KEY_NAME.get())

    return Reports(called, metrics.retried, metrics.failed)


def add_gauges(metrics: Metrics, exports: ImageExportService, admission: Admission) -> None:
    pool, directory = exports.pool, exports.store.layout.roots["generated"]

    def disk_free() -> float:
        try:
            status = os.statvfs(directory)
        except OSError:
            return math.nan
        return status.f_bavail * status.f_frsize

    metrics.gauge(
        "requests_inside", "Requests that were admitted and have not ended", lambda: sum(admission.inside.values())
    )
    metrics.gauge("bodies_being_read", "Request bodies that are being read", lambda: len(admission.bodies))
    metrics.gauge("jobs_waiting", "Jobs that wait for a worker", lambda: pool.waiting)
    metrics.gauge("workers", "Worker processes that are up", lambda: len(pool.pids))
    metrics.gauge("workers_busy", "Worker processes that have a job", lambda: pool.busy)
    metrics.gauge("descriptors_free", "File descriptors that may still be opened", descriptors.free)
    metrics.gauge("disk_free_bytes", "Free bytes of the disk under generated/", disk_free)
