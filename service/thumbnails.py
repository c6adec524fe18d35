"""The main job: a script becomes several variations, told as a stream of events."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from service.errors import (
    BadReply,
    NoExport,
    ServiceError,
    StorageFull,
    StorageUnavailable,
    TooCostly,
)
from service.exports import Exported, ImageExportService, Source, source_of
from service.gemini import models
from service.gemini.client import Call, GeminiService, InFlight, Reference
from service.gemini.prompts import build_prompt
from service.gemini.reply import Reply
from service.imaging.formats import SNIFF_BYTES, TABLE, Format, sniff
from service.imaging.plan import ExportPlan
from service.orders import Event, Failed, Order, Received, Sent, Variation, check_model, default_frame
from service.store.holds import Hold, held
from service.store.layout import raw_key

log = logging.getLogger(__name__)

EMULATOR_MODEL = "emulator"
# Gemini takes about 7 MB a picture (the documented limit); larger ones go as a JPEG.
MAX_REFERENCE_BYTES = 7_000_000


class ThumbnailService:
    """Owns the work of every order: a reader that goes away stops only what was not yet sent."""

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
        self._running: dict[asyncio.Task[None], list[_Standing]] = {}

    def model(self, order: Order) -> str:
        return order.model or self._exports.settings.gemini_model

    async def generate_thumbnails(
        self, script: str, image_path: str | None = None, aspect_ratio: str = "16:9", count: int = 1
    ) -> AsyncIterator[Event]:
        """The events of `count` variations of a script, with everything else at its default."""
        async for event in self.generate(Order(script, image_path, aspect_ratio, count)):
            yield event

    async def generate(self, order: Order, done: Callable[[], None] = lambda: None) -> AsyncGenerator[Event, None]:
        """The events of an order: sent, received, then done or failed, for each variation.

        Closing the iterator cancels the calls that are not out yet; those that are, are received, kept and
        exported all the same, and `done` is called when the last of them is. Raises InvalidField for what the
        model lacks, ImageError for a reference that cannot be sent.
        """
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        variations = [_Standing(f"var-{number}", number) for number in range(1, order.count + 1)]
        work = asyncio.create_task(self._work(order, variations, events))
        self._running[work] = variations

        def finish(task: asyncio.Task[None]) -> None:
            del self._running[task]
            events.put_nowait(None)
            done()

        work.add_done_callback(finish)
        try:
            while (event := await events.get()) is not None:
                yield event
            await work
        finally:
            if not work.done():
                _abandon(work, variations)

    def stop(self) -> None:
        """Cancel every call that is not out yet; iterators go on with the others to their end."""
        for work, variations in self._running.items():
            _abandon(work, variations)

    async def close(self) -> None:
        """End what is still under way; wait for it first where its pictures are wanted."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    async def _work(self, order: Order, variations: list["_Standing"], events: asyncio.Queue[Event | None]) -> None:
        check_model(self.model(order), order.aspect_ratio, order.image_size)
        async with held() as hold:
            base = None
            if order.image_path:
                await self._exports.store.hold_path(order.image_path, hold)
                base = await asyncio.to_thread(source_of, order.image_path)
            async with self._reference(base if order.reference else None) as reference:
                prompt = build_prompt(order.script, order.aspect_ratio, reference is not None)
                call = Call(self.model(order), prompt, order.aspect_ratio, order.image_size, reference)
                for variation in variations:
                    variation.task = asyncio.create_task(self._vary(variation, order, call, base, events))
                await _all(variation.task for variation in variations if variation.task)

    @asynccontextmanager
    async def _reference(self, base: Source | None) -> AsyncIterator[Reference | None]:
        """What goes along: the base as it is, or as a JPEG where Gemini would refuse it."""
        if base is None:
            yield None
            return
        kind, size = await asyncio.to_thread(_kind_and_size, base.path)
        if kind and size <= MAX_REFERENCE_BYTES:
            yield Reference(base.path, TABLE[kind].mime)
        else:
            async with self._exports.as_jpeg(base) as key:
                yield Reference(self._exports.store.local(key), TABLE["jpeg"].mime)

    async def _vary(
        self, variation: "_Standing", order: Order, call: Call, base: Source | None, events: asyncio.Queue[Event | None]
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

    async def _receive(
        self, variation: "_Standing", order: Order, call: Call, hold: Hold, events: asyncio.Queue[Event | None]
    ) -> "_Raw":
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
        return Source(self._exports.store.local(key), sha256)

    async def _export(self, order: Order, raw: "_Raw", base: Source | None) -> Exported:
        """Raises NoExport, whatever went wrong: the client learns why, and where the paid picture is."""
        plan = order.plan or ExportPlan(
            default_frame(order.aspect_ratio, order.image_size), matte=self._exports.settings.matte_rgb
        )
        encodings = order.encodings or self._exports.encodings()
        try:
            return await self._exports.export(raw.source, base.path if base else None, plan, encodings)
        except ServiceError as error:
            telling = isinstance(error, TooCostly | StorageFull | StorageUnavailable)
            raise _no_export(error.detail, raw, error.status if telling else NoExport.status) from error
        except Exception as error:
            log.exception("no export of %s", raw.key)
            raise _no_export("its export met an unexpected fault", raw, NoExport.status) from error

    def _metadata(self, call: Call, raw: "_Raw", exported: Exported) -> dict[str, Any]:
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


@dataclass(slots=True)
class _Standing:
    """Where one variation stands; `committed` from when its call is about to go out."""

    id: str
    number: int
    task: asyncio.Task[None] | None = None
    sent: bool = False
    committed: bool = False


async def _all(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Wait for all; when this is cancelled, so are they."""
    waited = list(tasks)
    try:
        await asyncio.gather(*waited, return_exceptions=True)
    finally:
        for task in waited:
            task.cancel()


def _kind_and_size(path: str) -> tuple[Format | None, int]:
    with open(path, "rb") as file:
        return sniff(file.read(SNIFF_BYTES)), os.fstat(file.fileno()).st_size


def _abandon(work: asyncio.Task[None], variations: list[_Standing]) -> None:
    """Cancel what was not sent."""
    if all(variation.task is None for variation in variations):
        work.cancel()
    for variation in variations:
        if variation.task and not variation.committed:
            variation.task.cancel()


def _no_export(reason: str, raw: _Raw, status: int) -> NoExport:
    error = NoExport(f"the picture is kept, but {reason}", billed=raw.billed, storage_path=raw.key)
    error.status = status
    return error
