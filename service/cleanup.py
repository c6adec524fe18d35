"""The `cleanup` command."""

import asyncio
import threading

from service.errors import ServiceError, SettingsError
from service.ledger.ledger import ledger_access, read_protected
from service.retention import PROTECTED_AREAS, sweep_area
from service.settings import Settings
from service.store.layout import AREAS
from service.store.sweeping import Sweep
from service.streams import print_text, warn


async def clean_up(settings: Settings, dry_run: bool) -> int:
    """Sweep all areas and report on each, with `dry_run` every file; returns the exit status."""
    stop = threading.Event()
    keep = await asyncio.to_thread(_protected, settings)
    failed = keep is None
    found = print_text if dry_run else lambda key: None
    try:
        for area in AREAS:
            if keep is None and area in PROTECTED_AREAS:
                continue
            done = await asyncio.to_thread(
                sweep_area, settings, area, dry_run=dry_run, stopped=stop.is_set, keep=keep or (), found=found
            )
            _report(area, done, "would remove" if dry_run else "removed")
            failed = failed or done.failed > 0
    finally:
        # After Ctrl-C the event loop waits for its threads before it closes.
        stop.set()
    return int(failed)


def _protected(settings: Settings) -> set[str] | None:
    """The keys that the ledger protects; None, after a warning, if it cannot be read."""
    try:
        return read_protected(ledger_access(settings))
    except (SettingsError, ServiceError) as error:
        warn(f"uploads/ and generated/ are left alone: {error}")
        return None


def _report(area: str, done: Sweep, verb: str) -> None:
    print_text(f"{area}: {verb} {done.files} files, {done.bytes} bytes; {done.in_use} in use")
    for error in done.errors:
        warn(f"{area}: {error}")
    if more := done.failed - len(done.errors):
        warn(f"{area}: {more} more files could not be removed")
