"""Cleaning at the start: removes files that no process holds and no row names, and counts raws without a row."""

import asyncio
import logging
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from service.errors import ServiceError
from service.exports import ImageExportService
from service.ledger.ledger import Ledger
from service.store.layout import Area
from service.store.sweeping import DAY_SECONDS, Sweep, sweep

log = logging.getLogger(__name__)

# Files are created before they are locked, so a younger one may belong to another process that has not locked it yet.
YOUNG_SECONDS = 10.0
PASSES = 4
SHOWN = 5


class Cleaning:
    """Removes the temp files and uploads of dead processes, and warns of raws that no request names."""

    def __init__(self, ledger: Ledger, exports: ImageExportService) -> None:
        self._ledger = ledger
        self._layout = exports.store.layout

    async def run(self) -> None:
        """Clean several times: at first some files are too young, or a worker still ends that outlived its service."""
        try:
            await self._warn_of_strays()
            for _ in range(PASSES):
                await self._clean()
                await asyncio.sleep(1.5 * YOUNG_SECONDS)
        except (ServiceError, OSError) as error:
            log.warning("temp/ and uploads/ are not cleaned: %s", error)

    async def _clean(self) -> None:
        temp = await self._sweep("temp", await self._ledger.temp_names())
        uploads = await self._sweep("uploads", await self._named_uploads())
        if temp.files or uploads.files:
            log.info("removed %d files of ended processes from temp/ and %d from uploads/", temp.files, uploads.files)

    async def _sweep(self, area: Area, keep: Collection[str]) -> Sweep:
        return await asyncio.to_thread(sweep, self._layout.roots[area], YOUNG_SECONDS / DAY_SECONDS, keep=keep)

    async def _named_uploads(self) -> set[str]:
        names = await self._names("uploads")
        return set(names).difference(await self._ledger.unnamed("uploads", names))

    async def _warn_of_strays(self) -> None:
        strays = await self._ledger.unnamed("generated", await self._names("generated"))
        if strays:
            shown = ", ".join(strays[:SHOWN])
            log.warning("generated/ has %d files that no request names, among them %s", len(strays), shown)

    async def _names(self, area: Area) -> list[str]:
        """The names in an area, but those of hidden files."""
        return await asyncio.to_thread(lambda: sorted(_visible(self._layout.roots[area])))


def _visible(directory: Path) -> Iterator[str]:
    with os.scandir(directory) as entries:
        yield from (entry.name for entry in entries if not entry.name.startswith("."))
