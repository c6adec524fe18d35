"""The steps of a variation in the ledger: each is durable before the next one is made."""

import json
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
from service.jobs.adoption import receipt_of
from service.ledger.ledger import Ledger
from service.ledger.steps import CallId, Failure, Receipt
from service.orders import Raw, Record, Variation
from service.stored import error_to_json, variation_to_json

log = logging.getLogger(__name__)

Later = Callable[[Callable[[], Awaitable[object]]], None]


class LedgerRecord(Record):
    """Writes one call's steps, and calls `changed` after each.

    What cannot be written once its call is paid for is handed to `later`, which tries again.
    """

    def __init__(
        self, ledger: Ledger, call: CallId, stem: str, pricing: Pricing, changed: Callable[[], None], later: Later
    ) -> None:
        self.stem = stem
        self.keep_planned = False
        self._ledger = ledger
        self.call = call
        self._pricing = pricing
        self._changed = changed
        self._later = later
        self._receipt: Receipt | None = None
        self._refused = False
        self._end_waits = False

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
            # Until then the ledger counts the call as sent, which is the safe side.
            log.warning("a refused call is still noted as sent: %s", error.detail)

    async def cancelled(self) -> None:
        await self.refused()
        if not self.keep_planned:
            await self._ledger.cancel(self.call, CANCELLED)
            self._changed()

    async def received(self, raw: Raw) -> None:
        receipt = receipt_of(raw, self._pricing)
        try:
            await self._ledger.receive(self.call, receipt)
            self._changed()
        except (StorageFull, StorageUnavailable) as error:
            # The raw is on the disk: its exports go on, and are written together with it.
            log.warning("a picture that came is not noted yet: %s", error.detail)
            self._receipt = receipt

    async def exported(self, variation: Variation) -> None:
        result, receipt = variation_to_json(variation), self._receipt
        error = await self._write_end(lambda: self._ledger.export(self.call, result, receipt))
        if error:
            raise type(error)(error.detail, billed=True, storage_path=variation.storage_path) from error

    async def failed(self, error: ServiceError) -> None:
        if self._end_waits:
            # Its exports are there, and will be noted.
            return
        text, receipt = error_to_json(error), self._receipt
        if isinstance(error, OutcomeUnknown | GeminiTimeout) and error.billed is None:
            await self._write_end(lambda: self._ledger.lose(self.call, text))
            return
        usage = json.dumps(error.usage) if error.usage else None
        failure = Failure(text, error.billed, self._cost_of(error), error.storage_path, usage)

        async def write() -> None:
            if receipt:
                await self._ledger.receive(self.call, receipt)
            await self._ledger.fail(self.call, failure)

        await self._write_end(write)

    def _cost_of(self, error: ServiceError) -> int | None:
        """By what Gemini counted; 0 for what was surely not billed, None where nobody knows."""
        return self._pricing.cost(error.usage)[0] if error.billed else 0 if error.billed is False else None

    async def _write_end(self, write: Callable[[], Awaitable[object]]) -> ServiceError | None:
        """Note the end of a call; what cannot be written now is written later, and the reason returned."""
        try:
            await write()
        except (StorageFull, StorageUnavailable) as error:
            log.error("the end of a call is not noted yet: %s", error.detail)
            self._end_waits = True
            self._later(write)
            return error
        finally:
            self._changed()
        return None


CANCELLED = error_to_json(Cancelled("the call was cancelled before it was sent"))
