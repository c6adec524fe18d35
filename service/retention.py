"""How long files are kept: the rule of each area, by its setting or as asked."""

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
    """Sweep one area by `days`, or by its setting, where 0 keeps for ever."""
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
    """Sweep temp/ and output/ by their settings: one line for cron, `python -c` and scripts."""
    settings = load_settings()
    return {
        "temp_files_deleted": sweep_area(settings, "temp").files,
        "output_files_deleted": sweep_area(settings, "output").files,
    }
