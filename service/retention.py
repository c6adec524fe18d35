"""Retention: sweeps an area by its setting, or by a number of days."""

import logging
from collections.abc import Callable

from service.settings import Settings, load_settings
from service.store.layout import Area
from service.store.sweeping import Sweep, sweep

log = logging.getLogger(__name__)


def sweep_area(
    settings: Settings,
    area: Area,
    days: float | None = None,
    *,
    dry_run: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Sweep:
    """Remove files of an area older than `days`, or if None than its setting, where 0 keeps files for ever.

    `stopped` is called before every file; True ends the sweep. Raises ValueError unless `days` > 0.
    """
    keep = settings.retention_days(area) if days is None else days
    if days is None and keep == 0:
        return Sweep()
    done = sweep(settings.area(area), keep, dry_run=dry_run, stopped=stopped)
    for error in done.errors:
        log.warning("sweep of %s could not remove %s", area, error)
    if more := done.failed - len(done.errors):
        log.warning("sweep of %s could not remove %d more files", area, more)
    return done


def cleanup_old_files() -> dict[str, int]:
    """Sweep temp/ and output/ by their settings, and count the files removed; for a cron line with `python -c`."""
    settings = load_settings()
    return {
        "temp_files_deleted": sweep_area(settings, "temp").files,
        "output_files_deleted": sweep_area(settings, "output").files,
    }
