"""Records the steps of one call in the ledger: each is durable before the next one is made."""

import logging
from collections.abc import Awaitable, Callable

from service.errors import (
    Cancelled,
    GeminiTimeout,
    OutcomeUnknown,
    ServiceError,
    StorageFull,
    StorageUnavailable,
)
from service.gemini.costs import Pricing
from service.jobs.pricing import failure_of, receipt_of
from service.ledger.ledger import Ledger
from service.ledger.steps import CallId, Receipt
from service.orders import Raw, Record, Variation
from service.stored import error_to_json, variation_to_json

log = logging.getLogger(__name__)

Retry = Callable[[Callable[[], Awaitable[object]]], None]


class LedgerRecord(Record):
    """Writes the steps of one call, and calls `changed` after each.

    The end of a call that the ledger refuses is handed to `retry`, which writes it later.
    """

    def __init__(
        self, ledger: Ledger, call: CallId, stem: str, pricing: Pricing, changed: Callable[[], None], retry: Retry
    ) -> None:
        self.stem = stem
        self.keep_planned = False
        self._ledger = ledger
        self.call = call
        self._pricing = pricing
        self._changed = changed
        self._retry = retry
        self._receipt: Receipt | None = None
        self._refused = False
        self._end_pending = False

    async def sending(self) -> None:
        if self._refused:
            await self._ledger.refuse(self.call)
            self._refused = False
        if not await self._ledger.send(self.call):
            raise Cancelled("the call was cancelled before it was sent")
        self._changed()

    async def refused(self) -> None:
        self._refused = True
        try:
            await self._ledger.refuse(self.call)
            self._refused = False
        except (StorageFull, StorageUnavailable) as error:
            # Until the next attempt the ledger counts the call as sent: it may only overstate what was spent.
            log.warning("a refused call is still recorded as sent: %s", error.detail)

    async def cancelled(self) -> None:
        await self.refused()
        if not self.keep_planned:
            await self._ledger.cancel_own(self.call, CANCELLED)
            self._changed()

    async def received(self, raw: Raw) -> None:
        receipt = receipt_of(raw, self._pricing)
        try:
            await self._ledger.receive(self.call, receipt)
            self._changed()
        except (StorageFull, StorageUnavailable) as error:
            # The raw is on the disk: its exports go on, and are recorded together with it.
            log.warning("a picture that was received is not recorded yet: %s", error.detail)
            self._receipt = receipt

    async def exported(self, variation: Variation) -> None:
        result, receipt = variation_to_json(variation), self._receipt
        error = await self._write_end(lambda: self._ledger.export(self.call, result, receipt))
        if error:
            raise type(error)(error.detail, billed=True, storage_path=variation.storage_path) from error

    async def failed(self, error: ServiceError) -> None:
        if self._end_pending:
            # Its exports are published, and will be recorded.
            return
        text, receipt = error_to_json(error), self._receipt
        if isinstance(error, OutcomeUnknown | GeminiTimeout) and error.billed is None:
            await self._write_end(lambda: self._ledger.lose(self.call, text))
            return
        if isinstance(error, Cancelled):
            if self.keep_planned:
                return
            await self._write_end(lambda: self._ledger.cancel_own(self.call, text))
            return
        failure = failure_of(error, self._pricing)

        async def write() -> None:
            if receipt:
                await self._ledger.receive(self.call, receipt)
            await self._ledger.fail(self.call, failure)

        await self._write_end(write)

    async def _write_end(self, write: Callable[[], Awaitable[object]]) -> ServiceError | None:
        """Record the end of a call; if the ledger refuses, it is retried later, and the refusal returned."""
        try:
            await write()
        except (StorageFull, StorageUnavailable) as error:
            log.error("the end of a call is not recorded yet: %s", error.detail)
            self._end_pending = True
            self._retry(write)
            return error
        finally:
            self._changed()
        return None


CANCELLED = error_to_json(Cancelled("the call was cancelled before it was sent"))
