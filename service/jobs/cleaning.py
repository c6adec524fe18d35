"""The disk beside the ledger, at the start: what nobody holds and no row names."""

import asyncio
import logging

from service.exports import ImageExportService
from service.ledger.ledger import Ledger
from service.store.sweeping import DAY_SECONDS, sweep

log = logging.getLogger(__name__)

# Files are made and then locked: younger ones may be another process's that has not locked them yet.
YOUNG_SECONDS = 10.0
NAMED = 5


class Cleaning:
    """Empties temp/ of what dead processes left, removes uploads without a request, and counts raws without a row."""

    def __init__(self, ledger: Ledger, exports: ImageExportService) -> None:
        self._ledger = ledger
        self._layout = exports.store.layout

    async def run(self) -> None:
        """Twice, since the first time some files may be too young."""
        await self._tell_of_strays()
        await self._empty()
        await asyncio.sleep(1.5 * YOUNG_SECONDS)
        await self._empty()

    async def _empty(self) -> None:
        kept = await self._ledger.named_uploads()
        days = YOUNG_SECONDS / DAY_SECONDS
        roots = self._layout.roots
        temp = await asyncio.to_thread(sweep, roots["temp"], days)
        uploads = await asyncio.to_thread(sweep, roots["uploads"], days, keep={key.partition("/")[2] for key in kept})
        if temp.files or uploads.files:
            log.info("removed %d files from temp/ and %d from uploads/ that nobody holds", temp.files, uploads.files)

    async def _tell_of_strays(self) -> None:
        named = {key.partition("/")[2] for key in await self._ledger.named_raws()}
        names = await asyncio.to_thread(lambda: [path.name for path in self._layout.roots["generated"].iterdir()])
        strays = sorted(name for name in names if name not in named and not name.startswith("."))
        if strays:
            shown = ", ".join(strays[:NAMED])
            log.warning("generated/ has %d files that no request names, among them %s", len(strays), shown)
