"""The main job: a script becomes several variations, told as a stream of events."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from service.bases import Base, source_of
from service.exports import ImageExportService
from service.gemini.call import Call, Reference
from service.gemini.prompts import build_prompt
from service.imaging.formats import TABLE
from service.orders import Event, Events, Order, check_model
from service.store.holds import held
from service.variations import VariationMaker, VariationState

if TYPE_CHECKING:
    from service.gemini.client import GeminiService


class ThumbnailService:
    """Owns the work of every order: a reader that goes away stops only what was not yet sent."""

    def __init__(
        self,
        gemini: "GeminiService",
        exports: ImageExportService,
        called: Callable[[str, float | None], None] = lambda outcome, cost: None,
    ) -> None:
        self._exports = exports
        self._maker = VariationMaker(gemini, exports, called)
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
    async def checked(self, order: Order) -> AsyncIterator[Order]:
        """The order with its base checked; raises ImageError when that cannot be used, NotFound when it is gone.

        `generate` does so by itself; here it is for who must know before. What came of the check goes when both this
        context and the work are at their end.
        """
        if order.base is None:
            yield order
            return
        plan = order.plan_over(self._exports.settings.matte_rgb)
        shared = order.checked or await self._exports.check(order.base, order.needs(plan))
        async with shared.used():
            yield replace(order, checked=shared)

    async def generate(self, order: Order, done: Callable[[], None] = lambda: None) -> AsyncGenerator[Event, None]:
        """The events of an order: sent, received, then done or failed, for each variation.

        Closing the iterator cancels the calls that are not out yet; those that are, are received, kept and
        exported all the same, and `done` is called when the last of them is. Raises InvalidField for what the
        model lacks, ImageError for a reference that cannot be sent, CancelledError after `stop`.
        """
        events: Events = asyncio.Queue()
        variations = [VariationState(f"var-{number}", number) for number in range(1, order.count + 1)]
        work = asyncio.create_task(self._work(order, variations, events))
        self._running[work] = variations

        def finish(task: asyncio.Task[None]) -> None:
            del self._running[task]
            events.put_nowait(None)
            done()

        work.add_done_callback(finish)
        if self._stopped:
            work.cancel()
        try:
            while (event := await events.get()) is not None:
                yield event
            await work
        finally:
            # The only place where it matters that the reader is gone: an order to be made all the same would skip it.
            if not work.done():
                _abandon(work, variations)

    def stop(self) -> None:
        """Send nothing from now on; iterators go on with the calls that are out to their end."""
        self._stopped = True
        for work, variations in self._running.items():
            _abandon(work, variations)

    async def close(self) -> None:
        """End what is still under way; wait for it first where its pictures are wanted."""
        self._stopped = True
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    async def _work(self, order: Order, variations: list[VariationState], events: Events) -> None:
        check_model(self.model(order), order.aspect_ratio, order.image_size)
        async with self.checked(order) as checked:
            base = checked.checked.base if checked.checked else None
            async with self._reference(base if order.reference else None) as reference:
                prompt = build_prompt(order.script, order.aspect_ratio, reference is not None)
                call = Call(self.model(order), prompt, order.aspect_ratio, order.image_size, reference)
                for variation in variations:
                    variation.task = asyncio.create_task(self._maker.run(variation, order, call, base, events))
                await _all(variation.task for variation in variations if variation.task)

    @asynccontextmanager
    async def _reference(self, base: Base | None) -> AsyncIterator[Reference | None]:
        """What goes along: the base as it is, or as a JPEG where Gemini would refuse it."""
        if base is None:
            yield None
        elif base.reference:
            yield Reference(base.reference, TABLE["jpeg"].mime)
        elif mime := base.source.reference_mime:
            yield Reference(base.source.path, mime)
        else:
            async with self._exports.as_jpeg(base.source) as key:
                yield Reference(self._exports.store.local(key), TABLE["jpeg"].mime)


async def _all(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Wait for all; when this is cancelled, so are they."""
    waited = list(tasks)
    try:
        await asyncio.gather(*waited, return_exceptions=True)
    finally:
        for task in waited:
            task.cancel()


def _abandon(work: asyncio.Task[None], variations: list[VariationState]) -> None:
    """Send nothing more for an order; what is out is received."""
    if all(variation.task is None for variation in variations):
        work.cancel()
    for variation in variations:
        variation.abandon()
