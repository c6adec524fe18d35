"""One variation: its call, the picture kept as received, its exports."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from service.bases import Base
from service.errors import BadReply, NoExport, ServiceError, StorageFull, StorageUnavailable, TooCostly
from service.exports import ExportSet, ImageExportService, Source
from service.gemini import models
from service.gemini.body import ReplyBody
from service.gemini.call import Call, Flight
from service.gemini.reply import Reply
from service.imaging.formats import SNIFF_BYTES, TABLE, sniff
from service.imaging.plan import Priority
from service.orders import Events, Failed, Order, Received, Sent, Variation
from service.store.holds import Hold, held
from service.store.layout import raw_key, spill_key
from service.store.scratch import Preallocated
from service.store.spill import spill_file

if TYPE_CHECKING:
    # Loads aiohttp and the SDK, which `image-export export` does without.
    from service.gemini.client import GeminiService

log = logging.getLogger(__name__)

EMULATOR_MODEL = "emulator"


@dataclass(slots=True)
class VariationState:
    """Where one variation stands. `out`: its call may cost money by now; `wanted`: somebody waits for it."""

    id: str
    number: int
    task: asyncio.Task[None] | None = None
    sent: bool = False
    out: bool = False
    wanted: bool = True

    def abandon(self) -> None:
        """Nobody waits any more: a call that is out is received and kept, but none goes out from now on."""
        self.wanted = False
        if self.task and not self.out:
            self.task.cancel()


class VariationMaker:
    """Takes variations from call to exports; `called` hears the outcome of each call and its list price."""

    def __init__(
        self,
        gemini: "GeminiService",
        exports: ImageExportService,
        called: Callable[[str, float | None], None] = lambda outcome, cost: None,
    ) -> None:
        self._gemini = gemini
        self._exports = exports
        self._called = called
        self._emulates = exports.settings.emulates

    async def run(
        self,
        variation: VariationState,
        order: Order,
        call: Call,
        base: Base | None,
        events: Events,
    ) -> None:
        """One variation, from call to exports; every outcome but a cancellation is an event."""
        try:
            async with held() as hold:
                raw = await self._receive(variation, order, call, hold, events)
                exported = await self._export(order, raw, base)
            events.put_nowait(Variation(variation.id, raw.key, self._metadata(call, raw, exported), exported))
        except ServiceError as error:
            log.warning("%s failed: %s %s", variation.id, error.code, error.detail)
            events.put_nowait(Failed(variation.id, error))
        except Exception:
            log.exception("%s failed", variation.id)
            fault = ServiceError("an unexpected fault; the log has it under this request's id", billed=None)
            events.put_nowait(Failed(variation.id, fault))

    async def _receive(self, variation: VariationState, order: Order, call: Call, hold: Hold, events: Events) -> "_Raw":
        """Call, and put the paid picture on the disk before anything else looks at it.

        Its room on the disk is taken before the call goes out, so that nobody can fill it meanwhile. Its bytes end
        with this method: in line for a worker, a thousand pictures must not fill the memory.
        """
        body = self._gemini.reply_body()
        async with AsyncExitStack() as spaces:
            flight = _Flight(variation, events, spaces, lambda: self._space(order, variation, call, body))
            try:
                reply = await self._draw(replace(call, body=body), flight)
            except BadReply as error:
                raise await self._kept_unread(order, variation, body, error, hold, flight.space) from error
            kind = sniff(reply.picture[:SNIFF_BYTES])
            key = raw_key(order.request_id, variation.number, TABLE[kind].suffix if kind else ".bin")
            source = await self._keep(key, reply.picture, hold, flight.space)
        events.put_nowait(Received(variation.id, key, len(reply.picture)))
        if kind is None:
            raise BadReply("what Gemini sent is not a picture", billed=True, storage_path=key)
        return _Raw(key, source, reply.usage)

    @asynccontextmanager
    async def _space(
        self, order: Order, variation: VariationState, call: Call, body: ReplyBody
    ) -> AsyncIterator[Preallocated]:
        """Room on the disk for the picture, and an open file for a reply that memory has no room for."""
        store, spill = self._exports.store, spill_key(order.request_id, variation.number)
        async with (
            store.space(models.raw_bytes(call.image_size)) as space,
            spill_file(store, spill) as body.file,
        ):
            with closing(body):
                yield space

    async def _draw(self, call: Call, flight: "_Flight") -> Reply:
        """One call, counted by its outcome; one that was never made is not."""
        try:
            reply = await self._gemini.draw(call, flight)
        except Exception as error:
            if flight.prepared:
                self._called(error.code if isinstance(error, ServiceError) else ServiceError.code, None)
            raise
        self._called("ok" if sniff(reply.picture[:SNIFF_BYTES]) else BadReply.code, self._price(call))
        return reply

    async def _keep(self, key: str, picture: bytes, hold: Hold, space: Preallocated | None) -> Source:
        with _billed(True):
            sha256 = await self._exports.store.write(key, picture, hold, space)
        return Source(self._exports.store.local(key), sha256, len(picture), sniff(picture[:SNIFF_BYTES]))

    async def _kept_unread(
        self,
        order: Order,
        variation: VariationState,
        body: ReplyBody,
        error: BadReply,
        hold: Hold,
        space: Preallocated | None,
    ) -> BadReply:
        """Keep a reply without a picture that can be read, whole; returns the error that names it."""
        store, key = self._exports.store, raw_key(order.request_id, variation.number, ".reply")
        detail = error.detail
        with _billed(error.billed):
            if body.spilled:
                if not await body.file_rest():
                    detail += "; the disk took only a part of it"
                await store.publish([(spill_key(order.request_id, variation.number), key)])
            elif body.size:
                try:
                    await store.write(key, await asyncio.to_thread(bytes, body.rest), hold, space)
                except StorageFull as full:
                    if full.storage_path != key:
                        raise
                    detail += "; the disk took only a part of it"
        return BadReply(detail, billed=error.billed, storage_path=key if body.size else None)

    async def _export(self, order: Order, raw: "_Raw", base: Base | None) -> ExportSet:
        """Raises NoExport, whatever went wrong: the client learns why, and where the paid picture is."""
        plan = order.plan_over(self._exports.settings.matte_rgb)
        encodings = order.encodings or self._exports.encodings()
        try:
            return await self._exports.export(raw.source, base, plan, encodings, Priority.PAID)
        except ServiceError as error:
            telling = isinstance(error, TooCostly | StorageFull | StorageUnavailable)
            raise _no_export(error.detail, raw, error.status if telling else NoExport.status) from error
        except Exception as error:
            log.exception("no export of %s", raw.key)
            raise _no_export("its export met an unexpected fault", raw, NoExport.status) from error

    def _metadata(self, call: Call, raw: "_Raw", exported: ExportSet) -> dict[str, Any]:
        return {
            "prompt": call.prompt,
            "model": EMULATOR_MODEL if self._emulates else call.model,
            "aspect_ratio": call.aspect_ratio,
            "width": exported.picture.width,
            "height": exported.picture.height,
            "mime_type": TABLE[exported.picture.format].mime,
            "sha256": raw.source.sha256,
            "usage": raw.usage,
            "cost_usd": self._price(call),
            "normalized_to": exported.normalized_to,
            "composited": exported.composited,
        }

    def _price(self, call: Call) -> float | None:
        """USD; the stand-in is free, a model outside the table is unknown."""
        return 0.0 if self._emulates else models.price(call.model, call.image_size)


class _Flight(Flight):
    """The call of one variation, with space on the disk for its picture from before it goes out."""

    def __init__(
        self,
        variation: VariationState,
        events: Events,
        spaces: AsyncExitStack,
        take_space: Callable[[], AbstractAsyncContextManager[Preallocated]],
    ) -> None:
        self._variation = variation
        self._events = events
        self._spaces = spaces
        self._take_space = take_space
        self.prepared = False
        self.space: Preallocated | None = None

    @property
    def wanted(self) -> bool:
        return self._variation.wanted

    async def prepare(self) -> None:
        self.space = await self._spaces.enter_async_context(self._take_space())
        self.prepared = True

    def sent(self) -> None:
        self._variation.out = True
        if not self._variation.sent:
            self._variation.sent = True
            self._events.put_nowait(Sent(self._variation.id))

    async def refused(self) -> None:
        self._variation.out = False
        await self._spaces.aclose()


@contextmanager
def _billed(billed: bool | None) -> Iterator[None]:
    """A disk that refuses what came of a call does not undo its price."""
    try:
        yield
    except (StorageFull, StorageUnavailable) as error:
        raise type(error)(
            error.detail, headers=error.headers, billed=billed, storage_path=error.storage_path
        ) from error


@dataclass(frozen=True, slots=True)
class _Raw:
    """A picture that Gemini sent, kept under `key`."""

    key: str
    source: Source
    usage: dict[str, Any] | None


def _no_export(reason: str, raw: _Raw, status: int) -> NoExport:
    return NoExport(f"the picture is kept, but {reason}", status=status, billed=True, storage_path=raw.key)
