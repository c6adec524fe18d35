"""Recovery: continues the requests of processes that died, at the start and every RESCUE_SECONDS.

| state of a call | on the disk | the call is |
|---|---|---|
| planned | | sent if its client may still ask for it, else cancelled |
| sending | the raw in generated/ | received, then exported |
| sending | a reply in generated/ that could not be read | failed |
| sending | the raw, or a whole reply, in temp/ | given its name in generated/, then the same |
| sending | nothing, or a part | unknown: it may have been sent |
| received | the raw | exported |
| received | nothing | failed, until the raw is found |
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from service.bases import SharedBase, lost_base
from service.callers import Caller
from service.errors import (
    ImageError,
    NoExport,
    NotFound,
    OutcomeUnknown,
    RawMissing,
    ServiceError,
    StorageFull,
    StorageUnavailable,
)
from service.exports import ImageExportService
from service.jobs.adoption import Leftovers
from service.jobs.job import COMMAND_LINE, Submission, outlives_client
from service.jobs.jobs import JobService
from service.jobs.pricing import failure_of, pricing_of, receipt_of
from service.jobs.record import CANCELLED
from service.ledger.rows import CallRow, RequestRow, microseconds
from service.ledger.steps import CallId, Failure
from service.orders import Order, Raw
from service.stored import Unreadable, error_to_json, order_from_json, usage_from_json

log = logging.getLogger(__name__)

RESCUE_SECONDS = 30.0
# Requests whose files are searched for at a time.
CONCURRENT = 16
# With fewer pictures to be exported, nothing is concluded from how many of them are missing.
MIN_RAWS = 10

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
        """`recovered` is called for each raw that is found."""
        self._recovered = recovered
        self._jobs = jobs
        self._ledger = jobs.ledger
        self._exports = exports
        self._leftovers = Leftovers(exports)
        self._key_lifetime = key_lifetime
        self._gate = asyncio.Semaphore(CONCURRENT)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Recover now and every RESCUE_SECONDS, until cancelled."""
        healed = False
        try:
            while True:
                try:
                    await self._take_over_dead()
                    if not healed:
                        await self._heal()
                    healed = True
                except ServiceError as error:
                    log.warning("recovery is put off: %s", error.detail)
                except Exception:
                    log.exception("recovery is put off")
                await asyncio.sleep(RESCUE_SECONDS)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take_over_dead(self) -> None:
        """Begin to recover the requests of dead processes; does not wait for the end of them."""
        for dead in await self._ledger.dead_owners():
            taken = await self._ledger.take_over(dead)
            await self._ledger.bury(dead)
            if taken:
                log.warning("recovering %d requests of a process that ended", len(taken))
            for request, calls in taken:
                self._begin(self._recover(request, calls))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _heal(self) -> None:
        """Receive pictures that are found only after their calls have ended without one."""
        for request, call in await self._ledger.healable():
            found = await self._leftovers.find(call)
            if not isinstance(found, Raw):
                continue
            if await self._ledger.receive(CallId.of(call), receipt_of(found, pricing_of(call))):
                self._recovered()
                self._begin(self._recover(request, [replace(call, state="received", raw=found.key)]))

    async def _recover(self, request: RequestRow, calls: Sequence[CallRow]) -> None:
        """Run calls of a request to their end; retries while the disk or the ledger refuses."""
        while True:
            try:
                async with self._gate:
                    starts = [start for call in calls if (start := await self._take_up(request, call))]
                if starts:
                    await self._run(request, starts)
                return
            except (ServiceError, OSError) as error:
                log.warning("the recovery of %s is put off: %s", request.id, error)
            except Exception:
                log.exception("the recovery of %s is put off", request.id)
            await asyncio.sleep(RESCUE_SECONDS)
            with contextlib.suppress(StorageFull, StorageUnavailable):
                found = await self._ledger.request(request.id)
                calls = found[1] if found else []

    async def _run(self, request: RequestRow, starts: Sequence[Start]) -> None:
        async with AsyncExitStack() as stack:
            try:
                order, stored = order_from_json(request.spec, request.id)
            except Unreadable as error:
                log.error("%s: %s", request.id, error)
                await self._give_up(starts)
                return
            base = None
            if stored:
                path = self._exports.store.local(stored.key) if stored.key else None
                order, base = await self._with_base(order, path, stack)
                if base.base.fault:
                    starts = await self._only_received(starts)
            # Its client has gone, so a graceful shutdown leaves what is planned to the next start, as for `async`.
            caller = Caller(request.principal)
            submission = Submission(caller, "async", request.idempotency_key, request.fingerprint, request.route)
            await self._jobs.run(order, submission, starts, base).ended.wait()

    async def _give_up(self, starts: Sequence[Start]) -> None:
        """End calls whose order cannot be read; their raws stay."""
        for call, raw in await self._only_received(starts):
            key = raw.key if raw else None
            error = NoExport("the picture is kept, but its order cannot be read", billed=True, storage_path=key)
            await self._ledger.fail(CallId.of(call), failure_of(error, pricing_of(call)))

    async def _take_up(self, request: RequestRow, call: CallRow) -> Start | None:
        """The call and its raw, if it is to be run; None if it has ended."""
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
            await self._ledger.receive(CallId.of(call), receipt_of(found, pricing_of(call)))
            self._recovered()
            return replace(call, state="received"), found
        if found:
            await self._ledger.fail(CallId.of(call), found)
        else:
            await self._ledger.lose(CallId.of(call), _UNKNOWN)
            await self._leftovers.remove(call)
        return None

    async def _take_up_received(self, call: CallRow) -> Start | None:
        key = call.raw or ""
        if await self._leftovers.is_there(key):
            return call, Raw(key, await self._leftovers.source(key), _usage(call))
        if await self._most_raws_are_missing():
            raise StorageUnavailable("generated/ lacks most of the pictures that are to be exported: is it mounted?")
        missing = RawMissing(f"{key} is not there any more", billed=True, storage_path=key)
        await self._ledger.fail(CallId.of(call), Failure(error_to_json(missing), billed=True))
        return None

    async def _most_raws_are_missing(self) -> bool:
        """Whether it is the directory that is missing, rather than a picture: then no call is given up."""
        keys = await self._ledger.received_raws()
        return len(keys) >= MIN_RAWS and 2 * len(await self._exports.store.present(keys)) < len(keys)

    def _may_be_sent(self, request: RequestRow) -> bool:
        """Whether a client may still ask for it, and the calls would go to the same backend as before."""
        awaited = outlives_client(request.route, request.mode, request.idempotency_key)
        young = microseconds() < request.created + self._key_lifetime
        here = request.backend == self._jobs.backend and request.principal != COMMAND_LINE
        return awaited and young and here and request.cancelled is None

    async def _with_base(self, order: Order, path: str | None, stack: AsyncExitStack) -> tuple[Order, SharedBase]:
        """The order with its base, checked; one that cannot be used any more becomes a warning of each export."""
        if path:
            with contextlib.suppress(ImageError, NotFound, OSError):
                order = replace(order, base=await self._exports.source_at(path))
                if shared := await stack.enter_async_context(self._jobs.checked(order)):
                    return order, shared
        return replace(order, base=None, reference=False), SharedBase(lost_base(), AsyncExitStack())

    async def _only_received(self, starts: Sequence[Start]) -> list[Start]:
        """The calls that have a raw; the others are cancelled."""
        for call, raw in starts:
            if raw is None:
                await self._ledger.cancel(CallId.of(call), CANCELLED)
        return [start for start in starts if start[1]]


def _usage(call: CallRow) -> dict[str, Any] | None:
    """Its usageMetadata; None also if it cannot be read: the cost is stored apart."""
    try:
        return usage_from_json(call.usage) if call.usage else None
    except Unreadable as error:
        log.error("%s, var-%d: %s", call.request_id, call.number, error)
        return None
