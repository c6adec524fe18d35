"""Taking up what processes that died left behind: at the start, and every RESCUE_SECONDS.

| state of a call | on the disk | what becomes of it |
|---|---|---|
| planned | | sent if the request may still be finished, else cancelled |
| sending | the raw in generated/ | received, then exported |
| sending | a reply in generated/ that could not be read | failed |
| sending | the raw, or a whole reply, in temp/ | given its name in generated/, then the same |
| sending | nothing, or a part | unknown: nobody can tell whether it was sent |
| received | the raw | exported |
| received | nothing | failed, until the raw turns up |
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from service.bases import SharedBase, lost_base
from service.errors import ImageError, NotFound, OutcomeUnknown, RawMissing, ServiceError
from service.exports import ImageExportService
from service.gemini.costs import Pricing
from service.jobs.adoption import Leftovers, receipt_of
from service.jobs.job import COMMAND_LINE, Asked, Caller
from service.jobs.jobs import JobService
from service.jobs.record import CANCELLED
from service.ledger.ledger import microseconds
from service.ledger.rows import CallRow, RequestRow
from service.ledger.steps import CallId, Failure
from service.orders import Order, Raw
from service.stored import error_to_json, order_from_json
from service.variations import EMULATOR_MODEL

log = logging.getLogger(__name__)

RESCUE_SECONDS = 30.0
# Requests that are recovered at a time: each may hold files and memory.
CONCURRENT = 16

_UNKNOWN = error_to_json(
    OutcomeUnknown("the service ended while the call was out; it may have been billed", billed=None)
)

Start = tuple[CallRow, Raw | None]


class Recovery:
    """Recovers the requests of dead owners; those of living ones are never touched."""

    def __init__(
        self,
        jobs: JobService,
        exports: ImageExportService,
        key_lifetime: int,
        recovered: Callable[[], None] = lambda: None,
    ) -> None:
        """`recovered` is called for each raw that is taken up."""
        self._recovered = recovered
        self._jobs = jobs
        self._ledger = jobs.ledger
        self._exports = exports
        self._leftovers = Leftovers(exports)
        self._key_lifetime = key_lifetime
        self._gate = asyncio.Semaphore(CONCURRENT)

    async def run(self) -> None:
        """Until cancelled."""
        healed = False
        while True:
            try:
                await self.once()
                if not healed:
                    await self._heal()
                healed = True
            except ServiceError as error:
                log.warning("recovery is put off: %s", error.detail)
            await asyncio.sleep(RESCUE_SECONDS)

    async def once(self) -> None:
        """Recover all that dead processes have left; ends when their requests have ended."""
        for dead in await self._ledger.dead_owners():
            taken = await self._ledger.take_over(dead)
            if taken:
                log.warning("recovering %d requests of a process that ended", len(taken))
            await asyncio.gather(*(self._recover(*each) for each in taken))
            await self._ledger.bury(dead)

    async def _heal(self) -> None:
        """Take up pictures that turned up after their calls were given up."""
        for request, call in await self._ledger.healable():
            found = await self._leftovers.find(call)
            if not isinstance(found, Raw):
                continue
            if await self._ledger.receive(CallId.of(call), receipt_of(found, _pricing(call))):
                self._recovered()
                await self._run(request, [(replace(call, state="received"), found)])

    async def _recover(self, request: RequestRow, calls: Sequence[CallRow]) -> None:
        async with self._gate:
            starts = [start for call in calls if (start := await self._take_up(request, call))]
            if starts:
                await self._run(request, starts)

    async def _run(self, request: RequestRow, starts: Sequence[Start]) -> None:
        """Go on with calls of a request to their end."""
        async with AsyncExitStack() as stack:
            order, stored = order_from_json(request.spec, request.id)
            base = None
            if stored:
                path = self._exports.store.local(stored.key) if stored.key else None
                order, base = await self._with_base(order, path, stack)
                if base.base.fault:
                    starts = await self._only_received(starts)
            asked = Asked(Caller(request.principal), request.mode, request.idempotency_key, request.fingerprint)
            await self._jobs.run(order, asked, starts, checked=base).ended.wait()

    async def _take_up(self, request: RequestRow, call: CallRow) -> Start | None:
        """Where a call goes on, if it does."""
        match call.state:
            case "planned":
                return await self._take_up_planned(request, call)
            case "sending":
                return await self._take_up_sending(call)
            case "received":
                return await self._take_up_received(call)
        return None

    async def _take_up_planned(self, request: RequestRow, call: CallRow) -> Start | None:
        if not self._may_be_sent(request):
            await self._ledger.cancel(CallId.of(call), CANCELLED)
            return None
        await self._leftovers.remove(call)
        return call, None

    async def _take_up_sending(self, call: CallRow) -> Start | None:
        found = await self._leftovers.find(call)
        if isinstance(found, Raw):
            await self._ledger.receive(CallId.of(call), receipt_of(found, _pricing(call)))
            self._recovered()
            return replace(call, state="received"), found
        if found:
            await self._ledger.fail(CallId.of(call), found)
        else:
            await self._ledger.lose(CallId.of(call), _UNKNOWN)
        return None

    async def _take_up_received(self, call: CallRow) -> Start | None:
        key = call.raw or ""
        if await self._leftovers.is_there(key):
            usage = json.loads(call.usage) if call.usage else None
            return call, Raw(key, await self._leftovers.source(key), usage)
        missing = RawMissing(f"{key} is not there any more", billed=True, storage_path=key)
        await self._ledger.fail(CallId.of(call), Failure(error_to_json(missing), billed=True))
        return None

    def _may_be_sent(self, request: RequestRow) -> bool:
        """Whether a client may still come for it, and it goes to where it was meant to go."""
        awaited = request.mode == "async" or request.idempotency_key is not None
        young = microseconds() < request.created + self._key_lifetime
        here = request.backend == self._jobs.backend and request.principal != COMMAND_LINE
        return awaited and young and here and request.cancelled is None

    async def _with_base(self, order: Order, path: str | None, stack: AsyncExitStack) -> tuple[Order, SharedBase]:
        """The order over its base, checked. One that cannot be used any more is a warning of each export."""
        if path:
            with contextlib.suppress(ImageError, NotFound, OSError):
                order = replace(order, base=await self._exports.source_at(path))
                if shared := await stack.enter_async_context(self._jobs.checked(order)):
                    return order, shared
        return replace(order, base=None, reference=False), SharedBase(lost_base(), AsyncExitStack())

    async def _only_received(self, starts: Sequence[Start]) -> list[Start]:
        """Without its base nothing more is sent."""
        for call, raw in starts:
            if raw is None:
                await self._ledger.cancel(CallId.of(call), CANCELLED)
        return [start for start in starts if start[1]]


def _pricing(call: CallRow) -> Pricing:
    return Pricing(call.model, call.image_size, call.model == EMULATOR_MODEL)
