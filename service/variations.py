"""One variation: its call, the picture kept as received, its exports."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from service.bases import Base
from service.errors import BadReply, NoExport, ServiceError, StorageFull, StorageUnavailable, TooCostly
from service.exports import ExportSet, ImageExportService, Source
from service.gemini import models
from service.gemini.client import Call, GeminiService, InFlight
from service.gemini.reply import Reply
from service.imaging.formats import SNIFF_BYTES, TABLE, sniff
from service.imaging.plan import Priority
from service.orders import Events, Failed, Order, Received, Sent, Variation
from service.store.holds import Hold, held
from service.store.layout import raw_key

log = logging.getLogger(__name__)

EMULATOR_MODEL = "emulator"


@dataclass(slots=True)
class VariationState:
    """Where one variation stands; `committed` from when its call is about to go out."""

    id: str
    number: int
    task: asyncio.Task[None] | None = None
    sent: bool = False
    committed: bool = False


class VariationMaker:
    """Takes variations from call to exports; `called` hears the outcome of each call and its list price."""

    def __init__(
        self,
        gemini: GeminiService,
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
        store, space = self._exports.store, ""
        async with AsyncExitStack() as spaces:

            async def in_flight(now: bool) -> None:
                nonlocal space
                variation.committed = now
                if not now:
                    await spaces.aclose()
                    return
                space = await spaces.enter_async_context(store.space(models.raw_bytes(call.image_size)))
                if not variation.sent:
                    variation.sent = True
                    events.put_nowait(Sent(variation.id))

            reply = await self._draw(call, in_flight)
            kind = sniff(reply.picture[:SNIFF_BYTES])
            key = raw_key(order.request_id, variation.number, TABLE[kind].suffix if kind else ".bin")
            source = await self._keep(key, reply, hold, space)
        events.put_nowait(Received(variation.id, key, len(reply.picture)))
        if kind is None:
            raise BadReply("what Gemini sent is not a picture", billed=reply.billed, storage_path=key)
        return _Raw(key, source, reply.usage, reply.billed)

    async def _draw(self, call: Call, in_flight: InFlight) -> Reply:
        """One call, counted by its outcome."""
        try:
            reply = await self._gemini.draw(call, in_flight)
        except (StorageFull, StorageUnavailable):
            # Nothing was called.
            raise
        except Exception as error:
            self._called(error.code if isinstance(error, ServiceError) else ServiceError.code, None)
            raise
        self._called("ok" if sniff(reply.picture[:SNIFF_BYTES]) else BadReply.code, self._price(call))
        return reply

    async def _keep(self, key: str, reply: Reply, hold: Hold, space: str) -> Source:
        try:
            sha256 = await self._exports.store.write(key, reply.picture, hold, space)
        except (StorageFull, StorageUnavailable) as error:
            error.billed = reply.billed
            raise
        return Source(self._exports.store.local(key), sha256, len(reply.picture), sniff(reply.picture[:SNIFF_BYTES]))

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


@dataclass(frozen=True, slots=True)
class _Raw:
    """A picture that Gemini sent, kept under `key`; `billed` is what is known of its price."""

    key: str
    source: Source
    usage: dict[str, Any]
    billed: bool | None


def _no_export(reason: str, raw: _Raw, status: int) -> NoExport:
    error = NoExport(f"the picture is kept, but {reason}", billed=raw.billed, storage_path=raw.key)
    error.status = status
    return error
