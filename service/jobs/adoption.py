"""What a call left on the disk when its process died: the raw, a reply that could not be read, or a part of either."""

import asyncio
import json
from pathlib import Path

from service.bases import Needs, Source, source_of
from service.errors import BadReply, GeminiError, ServiceError
from service.exports import ImageExportService
from service.gemini.costs import Pricing
from service.gemini.reply import Reply, try_reply
from service.imaging.formats import SNIFF_BYTES, TABLE, sniff
from service.imaging.plan import ExportPlan
from service.ledger.rows import CallRow
from service.ledger.steps import Failure, Receipt
from service.orders import Raw
from service.store.holds import held
from service.store.layout import part_key, raw_key, spill_key
from service.stored import error_to_json

# Nothing is needed of the picture but that it can be decoded.
_DECODED = Needs(ExportPlan(), None, 1, reference=False)
_SUFFIXES = (*(row.suffix for row in TABLE.values()), ".bin")


class Leftovers:
    """Finds what calls left behind, and gives what is whole its name in generated/."""

    def __init__(self, exports: ImageExportService) -> None:
        self._exports = exports
        self._store = exports.store

    async def find(self, call: CallRow) -> Raw | Failure | None:
        """The raw of a call that was out, a reply without one, or None."""
        raws = [raw_key(call.request_id, call.number, suffix) for suffix in _SUFFIXES]
        reply = raw_key(call.request_id, call.number, ".reply")
        there = await self._store.present([*raws, reply])
        if found := next((key for key in raws if key in there), None):
            return Raw(found, await self.source(found), None)
        if reply in there:
            return await self._unread(reply)
        return await self._adopt_part(call) or await self._adopt_spilled(call)

    async def source(self, key: str) -> Source:
        """A file of the store, hashed."""
        return await asyncio.to_thread(source_of, self._store.local(key))

    async def is_there(self, key: str) -> bool:
        return key in await self._store.present([key])

    async def remove(self, call: CallRow) -> None:
        """Make room for the temp files of a call that is made again."""
        await self._store.remove([part_key(call.request_id, call.number), spill_key(call.request_id, call.number)])

    async def _unread(self, key: str) -> Failure:
        reply = await self._read(key)
        billed = reply.billed if isinstance(reply, GeminiError) else None
        error = BadReply("Gemini's reply could not be read", billed=billed, storage_path=key)
        return Failure(error_to_json(error), billed, None, key)

    async def _adopt_part(self, call: CallRow) -> Raw | None:
        """A picture that has no name yet, if it decodes whole."""
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
        """A reply that went to the disk as it came, if it is whole."""
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


def receipt_of(raw: Raw, pricing: Pricing) -> Receipt:
    """What the ledger is told of a picture: its cost is estimated where its usage is not known."""
    cost, estimated = pricing.cost(raw.usage)
    usage = None if raw.usage is None else json.dumps(raw.usage)
    return Receipt(raw.key, raw.source.sha256, raw.source.size, usage, cost, estimated)
