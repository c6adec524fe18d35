"""Finds what a call left on the disk when its process died: the raw, an unreadable reply, or a part of either."""

import asyncio
from pathlib import Path

from service.bases import Needs, Source, source_of
from service.errors import BadReply, GeminiError, ServiceError
from service.exports import ImageExportService
from service.gemini.reply import Reply, try_reply
from service.imaging.formats import SNIFF_BYTES, TABLE, sniff
from service.imaging.plan import ExportPlan
from service.jobs.pricing import failure_of, pricing_of
from service.ledger.rows import CallRow
from service.ledger.steps import Failure
from service.orders import Raw
from service.store.holds import held
from service.store.layout import part_key, raw_key, spill_key

# The check only has to find out whether the picture can be decoded.
_DECODED = Needs(ExportPlan(), None, 1, reference=False)
_SUFFIXES = (*(row.suffix for row in TABLE.values()), ".bin")


class Leftovers:
    """Finds the files of calls in generated/ and temp/, and moves complete ones from temp/ to generated/."""

    def __init__(self, exports: ImageExportService) -> None:
        self._exports = exports
        self._store = exports.store

    async def find(self, call: CallRow) -> Raw | Failure | None:
        """The raw of a call that was sent, the failure that an unreadable reply means, or None."""
        raws = [raw_key(call.request_id, call.number, suffix) for suffix in _SUFFIXES]
        reply = raw_key(call.request_id, call.number, ".reply")
        temps = _temp_keys(call)
        there = await self._store.present([*raws, reply])
        if found := next((key for key in raws if key in there), None):
            return Raw(found, await self.source(found), None)
        if reply in there:
            return await self._unreadable(call, reply)
        for temp in temps:
            # Of a process that lost its connection to the ledger, but lives: it records its picture itself.
            if await self._store.is_held(temp):
                return None
        return await self._adopt_part(call) or await self._adopt_spilled(call)

    async def source(self, key: str) -> Source:
        """A file of the store, hashed."""
        return await asyncio.to_thread(source_of, self._store.local(key))

    async def is_there(self, key: str) -> bool:
        return key in await self._store.present([key])

    async def remove(self, call: CallRow) -> None:
        """Remove the temp files of a call, unless a process holds them."""
        await self._store.remove([key for key in _temp_keys(call) if not await self._store.is_held(key)])

    async def _unreadable(self, call: CallRow, key: str) -> Failure:
        reply = await self._read(key)
        billed, usage = (reply.billed, reply.usage) if isinstance(reply, GeminiError) else (None, None)
        error = BadReply("Gemini's reply could not be read", billed=billed, storage_path=key, usage=usage)
        return failure_of(error, pricing_of(call))

    async def _adopt_part(self, call: CallRow) -> Raw | None:
        """A picture that was not renamed yet, if all of it can be decoded."""
        part = part_key(call.request_id, call.number)
        if not await self.is_there(part):
            return None
        try:
            source = await self.source(part)
            async with (await self._exports.check(source, _DECODED)).used():
                pass
        except (ServiceError, OSError):
            return None
        key = self._key(call, source.format)
        await self._store.publish([(part, key)])
        return Raw(key, await self.source(key), None)

    async def _adopt_spilled(self, call: CallRow) -> Raw | None:
        """The picture of a reply that was spilled to the disk, if it is complete."""
        spilled = spill_key(call.request_id, call.number)
        reply = await self._read(spilled) if await self.is_there(spilled) else None
        if not isinstance(reply, Reply):
            return None
        key = self._key(call, sniff(reply.picture[:SNIFF_BYTES]))
        async with held() as hold:
            await self._store.write(key, reply.picture, hold)
        return Raw(key, await self.source(key), reply.usage)

    async def _read(self, key: str) -> Reply | GeminiError:
        data = await asyncio.to_thread(Path(self._store.local(key)).read_bytes)
        return await asyncio.to_thread(try_reply, data)

    @staticmethod
    def _key(call: CallRow, kind: str | None) -> str:
        suffix = next((row.suffix for name, row in TABLE.items() if name == kind), ".bin")
        return raw_key(call.request_id, call.number, suffix)


def _temp_keys(call: CallRow) -> list[str]:
    return [part_key(call.request_id, call.number), spill_key(call.request_id, call.number)]
