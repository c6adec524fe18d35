"""Retention: sweeps an area by its setting, or by a number of days."""

import logging
from collections.abc import Callable, Collection

from service.settings import Settings, load_settings
from service.store.layout import Area
from service.store.sweeping import DAY_SECONDS, Sweep, sweep

log = logging.getLogger(__name__)

# The areas with files that the ledger protects: they are not swept while it cannot be read.
PROTECTED_AREAS: tuple[Area, ...] = ("uploads", "generated")


def sweep_area(
    settings: Settings,
    area: Area,
    days: float | None = None,
    *,
    dry_run: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    keep: Collection[str] = (),
    found: Callable[[str], None] = lambda key: None,
) -> Sweep:
    """Remove files of an area older than `days`, or if None than its setting, where 0 keeps files for ever.

    The keys in `keep` stay, and an export stays as long as a signed link to it may live. `found` is called with each
    key that is, or with `dry_run` would be, removed. `stopped` is called before every file; True ends the sweep.
    Raises ValueError unless `days` > 0.
    """
    if days is None and settings.retention_days(area) == 0:
        return Sweep()
    done = sweep(
        settings.area(area),
        _days(settings, area, days),
        dry_run=dry_run,
        stopped=stopped,
        keep={key.partition("/")[2] for key in keep if key.startswith(f"{area}/")},
        found=lambda name: found(f"{area}/{name}"),
    )
    for error in done.errors:
        log.warning("sweep of %s could not remove %s", area, error)
    if more := done.failed - len(done.errors):
        log.warning("sweep of %s could not remove %d more files", area, more)
    return done


def _days(settings: Settings, area: Area, days: float | None) -> float:
    """The age in days from which files are removed: for exports at least the life of a signed link."""
    days = settings.retention_days(area) if days is None else days
    if area == "output" and settings.sign_urls and days > 0:
        return max(days, settings.url_signature_expiry / DAY_SECONDS)
    return days


def cleanup_old_files() -> dict[str, int]:
    """Sweep temp/ and output/ by their settings, and count the files removed; for a cron line with `python -c`."""
    settings = load_settings()
    return {
        "temp_files_deleted": sweep_area(settings, "temp").files,
        "output_files_deleted": sweep_area(settings, "output").files,
    }
