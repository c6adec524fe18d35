"""One variation: its call to Gemini, the raw stored as received, and its exports."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from service.bases import Base
from service.errors import BadReply, Cancelled, NoExport, ServiceError, StorageFull, StorageUnavailable, TooCostly
from service.exports import ImageExportService, Source
from service.gemini import models
from service.gemini.call import Call, CallHooks
from service.gemini.costs import Pricing, usd
from service.gemini.reply import Reply
from service.imaging.formats import SNIFF_BYTES, TABLE, sniff
from service.imaging.plan import Priority
from service.metrics import CallReport
from service.orders import Events, Failed, Order, Raw, Received, Record, Sent, Variation, VariationMetadata
from service.publishing import ExportSet
from service.store.holds import Hold, held
from service.store.layout import part_key, raw_key, spill_key
from service.store.scratch import Preallocated
from service.store.spill import spill_file

if TYPE_CHECKING:
    # Imports aiohttp and the SDK, which `image-export export` does not need.
    from service.gemini.client import GeminiService

log = logging.getLogger(__name__)

EMULATOR_MODEL = "emulator"
# Calls prepared at a time, first come, first served. Without a limit the tasks of a burst advance in step: none would
# be sent before nearly all are prepared. More than one, since preparing a call waits for the disk and the ledger.
PREPARING = 32


@dataclass(slots=True)
class VariationState:
    """The progress of one variation. `out`: its call was sent and may cost money; `wanted`: its events are read."""

    id: str
    number: int
    task: asyncio.Task[None] | None = None
    sent: bool = False
    out: bool = False
    wanted: bool = True

    def abandon(self) -> None:
        """Send nothing from now on; the reply to a call that was sent is still received, stored and exported."""
        self.wanted = False
        if self.task and not self.out:
            self.task.cancel()


@dataclass(frozen=True, slots=True)
class Reports:
    """Callbacks: `called` for each call that ended, `retried` for one sent again, `failed(code)` for a variation."""

    called: Callable[[CallReport], None] = lambda report: None
    retried: Callable[[], None] = lambda: None
    failed: Callable[[str], None] = lambda code: None


@dataclass(frozen=True, slots=True)
class Services:
    """The services that a variation needs, and where it reports."""

    gemini: "GeminiService"
    exports: ImageExportService
    reports: Reports = field(default_factory=Reports)
    preparing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PREPARING))


class VariationRun(CallHooks):
    """Takes one variation from its call to its exports; records each step, then puts an event for it.

    The steps, in order: `prepare` (about to be sent), `sent`, `refused` (after which it may be prepared again),
    `_received` or `_unreadable`, and `_exported`.
    """

    def __init__(
        self,
        services: Services,
        variation: VariationState,
        order: Order,
        call: Call,
        base: Base | None,
        events: Events,
        record: Record,
    ) -> None:
        self._services = services
        self._store = services.exports.store
        self._variation = variation
        self._order = order
        self._body = services.gemini.reply_body()
        self._call = replace(call, body=self._body)
        self._base = base
        self._events = events
        self._record = record
        self._reserved = AsyncExitStack()
        self._space: Preallocated | None = None
        self._called = False
        self._sent_at: float | None = None

    async def run(self, raw: Raw | None = None) -> None:
        """Run to the end; every outcome but a cancellation is an event. With `raw`, only the exports are made."""
        try:
            async with held() as hold:
                await self._exported(raw or await self._receive(hold))
        except asyncio.CancelledError:
            if not self._variation.out:
                await self._record.cancelled()
            raise
        except ServiceError as error:
            log.warning("%s failed: %s %s", self._variation.id, error.code, error.detail)
            await self._failed(error)
        except Exception:
            log.exception("%s failed", self._variation.id)
            await self._failed(ServiceError("an unexpected fault; the log has it under this request's id", billed=None))

    async def _failed(self, error: ServiceError) -> None:
        self._services.reports.failed(error.code)
        await self._record.failed(error)
        self._events.put_nowait(Failed(self._variation.id, error))

    async def _receive(self, hold: Hold) -> Raw:
        """Make the call, and write the reply to the disk before anything decodes it.

        The picture's bytes are freed at the end of this method: many pictures may wait for a worker, and must not fill
        the memory.
        """
        async with self._reserved:
            try:
                reply = await self._generate()
            except BadReply as error:
                raise await self._unreadable(error, hold) from error
            return await self._received(reply, hold)

    async def _generate(self) -> Reply:
        """Make the call, and count it by its outcome if it was prepared."""
        try:
            reply = await self._services.gemini.generate_image(self._call, self)
        except Exception as error:
            if self._called:
                self._report_call(error.code if isinstance(error, ServiceError) else ServiceError.code)
            raise
        self._report_call("ok" if sniff(reply.picture[:SNIFF_BYTES]) else BadReply.code, self._cost(reply.usage))
        return reply

    def _report_call(self, outcome: str, cost: float | None = None) -> None:
        seconds = None if self._sent_at is None else time.monotonic() - self._sent_at
        self._services.reports.called(CallReport(self._model, outcome, cost, seconds))

    async def prepare(self) -> None:
        """Reserve disk space and a descriptor for the reply, which others could use up while the call is out."""
        async with self._services.preparing:
            self._space = await self._reserved.enter_async_context(self._reservation())
            await self._record.sending()
        self._called = True

    @asynccontextmanager
    async def _reservation(self) -> AsyncIterator[Preallocated]:
        """Disk space for the picture, and an open file for a reply that does not fit into memory."""
        part = part_key(self._order.request_id, self._variation.number)
        spill = spill_key(self._order.request_id, self._variation.number)
        async with (
            self._store.space(models.raw_bytes(self._call.image_size), part) as space,
            spill_file(self._store, spill) as self._body.file,
        ):
            with closing(self._body):
                yield space

    def sent(self) -> None:
        self._variation.out = True
        if self._sent_at is not None:
            self._services.reports.retried()
        self._sent_at = time.monotonic()
        if not self._variation.sent:
            self._variation.sent = True
            self._events.put_nowait(Sent(self._variation.id))

    async def refused(self) -> None:
        self._variation.out = False
        await self._reserved.aclose()
        await self._record.refused()
        if not self._variation.wanted:
            raise Cancelled("the call was refused, and is not sent again: it was cancelled meanwhile")

    async def _received(self, reply: Reply, hold: Hold) -> Raw:
        """Store the bytes as received; raises BadReply, which names the file, if they are not a picture."""
        kind = sniff(reply.picture[:SNIFF_BYTES])
        key = self._raw_key(TABLE[kind].suffix if kind else ".bin")
        with _billed(True, reply.usage):
            sha256 = await self._store.write(key, reply.picture, hold, self._space)
        raw = Raw(key, Source(self._store.local(key), sha256, len(reply.picture), kind), reply.usage)
        await self._record.received(raw)
        self._events.put_nowait(Received(self._variation.id, key, len(reply.picture)))
        if kind is None:
            raise BadReply("what Gemini sent is not a picture", billed=True, storage_path=key)
        return raw

    async def _unreadable(self, error: BadReply, hold: Hold) -> BadReply:
        """Store the whole reply, in which no picture could be read; returns the error that names its file."""
        key, body, detail = self._raw_key(".reply"), self._body, error.detail
        with _billed(error.billed, error.usage):
            if body.spilled:
                if not await body.file_rest():
                    detail += "; the disk took only a part of it"
                await self._store.publish([(spill_key(self._order.request_id, self._variation.number), key)])
            elif body.size:
                try:
                    await self._store.write(key, await asyncio.to_thread(bytes, body.rest), hold, self._space)
                except StorageFull as full:
                    if full.storage_path != key:
                        raise
                    detail += "; the disk took only a part of it"
        return BadReply(detail, billed=error.billed, storage_path=key if body.size else None, usage=error.usage)

    def _raw_key(self, suffix: str) -> str:
        return raw_key(self._order.request_id, self._variation.number, suffix)

    async def _exported(self, raw: Raw) -> None:
        exported = await self._export(raw)
        variation = Variation(self._variation.id, raw.key, self._metadata(raw, exported), exported)
        await self._record.exported(variation)
        self._events.put_nowait(variation)

    async def _export(self, raw: Raw) -> ExportSet:
        """Export the raw; raises NoExport for any fault, which says why and names the raw: it was paid for."""
        exports, order = self._services.exports, self._order
        plan = order.effective_plan(exports.settings.matte_rgb)
        encodings = order.encodings or exports.encodings()
        try:
            return await exports.export(raw.source, self._base, plan, encodings, Priority.PAID, self._record.stem)
        except ServiceError as error:
            keeps_status = isinstance(error, NoExport | TooCostly | StorageFull | StorageUnavailable)
            raise _no_export(error.detail, raw, error.status if keeps_status else NoExport.status) from error
        except Exception as error:
            log.exception("no export of %s", raw.key)
            raise _no_export("its export met an unexpected fault", raw, NoExport.status) from error

    def _metadata(self, raw: Raw, exported: ExportSet) -> VariationMetadata:
        return VariationMetadata(
            prompt=self._call.prompt,
            model=self._model,
            aspect_ratio=self._call.aspect_ratio,
            width=exported.picture.width,
            height=exported.picture.height,
            mime_type=TABLE[exported.picture.format].mime,
            sha256=raw.source.sha256,
            usage=raw.usage,
            cost_usd=self._cost(raw.usage),
            normalized_to=exported.normalized_to,
            composited=exported.composited,
            c2pa=exported.picture.c2pa,
            digital_source_type=exported.mark,
        )

    @property
    def _model(self) -> str:
        return EMULATOR_MODEL if self._emulated else self._call.model

    @property
    def _emulated(self) -> bool:
        return self._services.exports.settings.emulates

    def _cost(self, usage: dict[str, Any] | None) -> float | None:
        """USD; None for a model whose price is unknown."""
        cost, _ = Pricing(self._call.model, self._call.image_size, self._emulated).cost(usage)
        return None if cost is None else usd(cost)


@contextmanager
def _billed(billed: bool | None, usage: Mapping[str, Any] | None) -> Iterator[None]:
    """Let errors of the disk say whether the call was billed, and for what, which does not depend on the disk."""
    try:
        yield
    except (StorageFull, StorageUnavailable) as error:
        raise type(error)(
            error.detail, headers=error.headers, billed=billed, storage_path=error.storage_path, usage=usage
        ) from error


def _no_export(reason: str, raw: Raw, status: int) -> NoExport:
    return NoExport(f"the picture is kept, but {reason}", status=status, billed=True, storage_path=raw.key)
