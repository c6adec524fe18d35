"""The main use case: a script becomes several variations, reported as a stream of events."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from service.bases import Base, SharedBase, source_of
from service.exports import ImageExportService
from service.gemini.call import Call, Reference
from service.gemini.prompts import build_prompt
from service.imaging.formats import TABLE
from service.orders import Event, Events, Order, Start, check_model
from service.store.holds import held
from service.variations import Reports, Services, VariationRun, VariationState

if TYPE_CHECKING:
    from service.gemini.client import GeminiService


class ThumbnailService:
    """Runs orders, each in a task of its own: a client that disconnects stops only the calls that were not sent."""

    def __init__(
        self,
        gemini: "GeminiService",
        exports: ImageExportService,
        reports: Reports | None = None,
    ) -> None:
        self._exports = exports
        self._services = Services(gemini, exports, reports or Reports())
        self._running: dict[asyncio.Task[None], list[VariationState]] = {}
        self._stopped = False

    def model(self, order: Order) -> str:
        return order.model or self._exports.settings.gemini_model

    async def generate_thumbnails(
        self, script: str, image_path: str | None = None, aspect_ratio: str = "16:9", count: int = 1
    ) -> AsyncIterator[Event]:
        """The events of `count` variations of a script, with everything else at its default."""
        async with held() as hold:
            base = None
            if image_path:
                await self._exports.store.hold_path(image_path, hold)
                base = await asyncio.to_thread(source_of, image_path)
            async for event in self.generate(Order(script, base, aspect_ratio, count)):
                yield event

    @asynccontextmanager
    async def checked(self, order: Order) -> AsyncIterator[SharedBase | None]:
        """The order's base after its check, to pass to `generate`, which otherwise checks it itself.

        For callers that must refuse a bad base before they begin. Raises ImageError when it cannot be used, NotFound
        when it is gone. The files made by the check are removed when this context and the order's work have ended.
        """
        async with self._used(await self._check(order)) as shared:
            yield shared

    async def _check(self, order: Order) -> SharedBase | None:
        if order.base is None:
            return None
        plan = order.effective_plan(self._exports.settings.matte_rgb)
        return await self._exports.check(order.base, order.needs(plan))

    @staticmethod
    @asynccontextmanager
    async def _used(shared: SharedBase | None) -> AsyncIterator[SharedBase | None]:
        if shared is None:
            yield None
            return
        async with shared.used():
            yield shared

    async def generate(
        self,
        order: Order,
        done: Callable[[], None] = lambda: None,
        checked: SharedBase | None = None,
        starts: Sequence[Start] | None = None,
    ) -> AsyncGenerator[Event, None]:
        """The events of an order: sent, received, then done or failed, for each variation.

        `starts` are the variations to be made, by default all of the order.

        Closing the iterator cancels the calls that were not sent yet. The replies to those that were are still
        received, stored and exported, and `done` is called after the last of them. Raises InvalidField for a ratio or
        size that the model lacks, ImageError for a base that cannot be used, CancelledError after `stop`.
        """
        events: Events = asyncio.Queue()
        if starts is None:
            starts = [Start(number) for number in range(1, order.count + 1)]
        variations = [VariationState(f"var-{start.number}", start.number) for start in starts]
        work = asyncio.create_task(self._work(order, checked, starts, variations, events))
        self._register(work, variations, events, done)
        try:
            while (event := await events.get()) is not None:
                yield event
            await work
        finally:
            # The iterator was closed before the end: its reader does not want the rest.
            if not work.done():
                _abandon(work, variations)

    def _register(
        self, work: asyncio.Task[None], variations: list[VariationState], events: Events, done: Callable[[], None]
    ) -> None:
        """Keep running work for `stop` and `close`; at its end, end the stream of events and call `done`."""
        self._running[work] = variations

        def finish(task: asyncio.Task[None]) -> None:
            del self._running[task]
            events.put_nowait(None)
            done()

        work.add_done_callback(finish)
        if self._stopped:
            work.cancel()

    def stop(self) -> None:
        """Send no more calls; the iterators go on until the calls that were sent have ended."""
        self._stopped = True
        for work, variations in self._running.items():
            _abandon(work, variations)

    async def close(self) -> None:
        """Cancel all work. Wait for the iterators first, or pictures that were paid for are lost."""
        self._stopped = True
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    async def _work(
        self,
        order: Order,
        checked: SharedBase | None,
        starts: Sequence[Start],
        variations: list[VariationState],
        events: Events,
    ) -> None:
        check_model(self.model(order), order.aspect_ratio, order.image_size)
        async with self._used(checked or await self._check(order)) as shared:
            base = shared.base if shared else None
            async with self._reference(base if order.reference else None) as reference:
                prompt = build_prompt(order.script, order.aspect_ratio, reference is not None)
                call = Call(self.model(order), prompt, order.aspect_ratio, order.image_size, reference)
                for start, variation in zip(starts, variations, strict=True):
                    run = VariationRun(self._services, variation, order, call, base, events, start.record)
                    variation.task = asyncio.create_task(run.run(start.raw))
                await _wait_or_cancel([variation.task for variation in variations if variation.task])

    @asynccontextmanager
    async def _reference(self, base: Base | None) -> AsyncIterator[Reference | None]:
        """The picture to send along: the base as it is, or as a JPEG where Gemini would refuse it."""
        if base is None:
            yield None
        elif base.reference:
            yield Reference(base.reference, TABLE["jpeg"].mime)
        elif mime := base.source.reference_mime:
            yield Reference(base.source.path, mime)
        else:
            async with self._exports.as_jpeg(base.source) as key:
                yield Reference(self._exports.store.local(key), TABLE["jpeg"].mime)


async def _wait_or_cancel(tasks: list[asyncio.Task[None]]) -> None:
    """Wait for all tasks, whatever they raise, or cancel all when this is cancelled."""
    try:
        await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        for task in tasks:
            task.cancel()


def _abandon(work: asyncio.Task[None], variations: list[VariationState]) -> None:
    """Send no more calls for an order; the replies to those that were sent are still received."""
    if all(variation.task is None for variation in variations):
        work.cancel()
    for variation in variations:
        variation.abandon()
