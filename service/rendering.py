"""Jobs for the workers: their priority and cost in the queue, their digest, and what happens if a base fails."""

import asyncio
import hashlib
import logging
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from service.bases import REFERENCE_ENCODING, REFERENCE_PLAN, Base, Needs, SharedBase, Source
from service.errors import StorageFull, StorageUnavailable
from service.imaging.cost import export_seconds, is_large
from service.imaging.errors import TooCostly
from service.imaging.formats import Encoding
from service.imaging.frame import Frame, Size
from service.imaging.plan import (
    CheckJob,
    CheckOutcome,
    ExportJob,
    ExportOutcome,
    ExportPlan,
    ExportWarning,
    InspectJob,
    Job,
    Outcome,
    Picture,
    Priority,
    Rendition,
)
from service.imaging.probe import stored_size
from service.store.holds import Hold, held
from service.store.local import LocalStore
from service.workers.pool import WorkerPool
from service.workers.queue import Place

log = logging.getLogger(__name__)

# The plan by which the cost of a job is estimated that only reads or decodes.
_NO_EXPORTS = ExportPlan(Frame(1, 1))


class Renderer:
    """Submits jobs to the worker pool; what is wrong with a picture is returned, not raised."""

    def __init__(self, pool: WorkerPool, store: LocalStore, max_pixels: int) -> None:
        self._pool = pool
        self._store = store
        self._largest = (max_pixels, 1)

    async def inspect(self, source: Source) -> Outcome:
        """Read a picture's headers."""
        return await self._run(InspectJob(source.path), _NO_EXPORTS, (source,), Priority.OTHER)

    async def check(self, source: Source, needs: Needs) -> SharedBase | Outcome:
        """Decode a base in full, once for all that its order needs; raises NotFound if its file is gone."""
        async with AsyncExitStack() as stack:
            hold = await stack.enter_async_context(held())
            await self._store.hold_path(source.path, hold)
            wanted = await self._renditions(source, needs, hold, stack)
            outcome = await self._run(CheckJob(source.path, tuple(wanted)), _NO_EXPORTS, (source,), Priority.PAID)
            if not isinstance(outcome, CheckOutcome):
                return outcome
            base = Base(source)
            for rendition, made in zip(wanted, outcome.made, strict=True):
                if rendition.encoding is None:
                    base.prepared = made
                else:
                    base.reference = made.path if made else None
            return SharedBase(base, stack.pop_all())

    async def _renditions(self, source: Source, needs: Needs, hold: Hold, stack: AsyncExitStack) -> list[Rendition]:
        """The renditions, each with a held file in temp/; if there is no space, none: each export decodes the base."""
        wanted = [Rendition(needs.plan, "", size) for size in (needs.prepared_size(),) if size]
        if needs.needs_jpeg(source):
            wanted.append(Rendition(REFERENCE_PLAN, "", encoding=REFERENCE_ENCODING))
        try:
            temps = await self._store.reserve(len(wanted), hold)
        except (StorageFull, StorageUnavailable) as error:
            log.warning("the base is not prepared: %s", error.detail)
            return []
        stack.push_async_callback(self._store.remove, temps)
        return [replace(each, target=self._store.local(temp)) for each, temp in zip(wanted, temps, strict=True)]

    async def export(
        self,
        source: Source,
        base: Base | None,
        plan: ExportPlan,
        targets: Sequence[tuple[Encoding, str]],
        priority: Priority,
    ) -> Outcome:
        """Decode once, encode each format.

        If picture and base together exceed a worker's time or memory, or kill three workers, the picture is tried once
        more without the base. If that works the base was at fault, and no further export uses it.
        """
        frames = await self._frames(source, plan)
        if not isinstance(frames, int):
            return frames
        alone = ExportJob(source.path, None, plan, tuple(targets))
        if base is None or base.fault:
            return _with_base_warning(await self._run(alone, plan, (source,), priority, frames), base)
        job = replace(alone, base=base.source.path, prepared=base.prepared, base_required=base.required)
        outcome = await self._run(job, plan, (source, base.source), priority, frames)
        if base.required or not isinstance(outcome, TooCostly):
            return outcome
        second = await self._run(alone, plan, (source,), priority, frames)
        if isinstance(second, ExportOutcome):
            base.fault = f"the picture is exported without its base: with it, {outcome.detail}"
        return _with_base_warning(second, base)

    async def _frames(self, source: Source, plan: ExportPlan) -> int | Outcome:
        """How many frames are exported, by which a job has its place in the queue; only a worker counts them."""
        if plan.animate == "first":
            return 1
        outcome = await self.inspect(source)
        return outcome.frames if isinstance(outcome, Picture) else outcome

    async def _run(
        self, job: Job, plan: ExportPlan, sources: Sequence[Source], priority: Priority, frames: int = 1
    ) -> Outcome:
        decoded = [source.path for source in sources]
        if isinstance(job, ExportJob) and job.prepared:
            decoded.pop()
        sizes = await asyncio.to_thread(lambda: [self._size(path) for path in decoded])
        cost = export_seconds(plan, _encodings(job), sizes, frames)
        place = Place(priority, cost, is_large(plan, sizes[0], frames))
        return await self._pool.run(job, _digest(job, plan, sources), place)

    def _size(self, path: str) -> Size:
        """The size by the file's headers; the largest allowed if they have none, so that it does not count as cheap."""
        try:
            with open(path, "rb", opener=_open_nonblocking) as file:
                return stored_size(file) or self._largest
        except OSError:
            return self._largest


def _open_nonblocking(path: str, flags: int) -> int:
    """Opening a FIFO would otherwise wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _encodings(job: Job) -> list[Encoding]:
    return [encoding for encoding, _ in job.targets] if isinstance(job, ExportJob) else []


def _digest(job: Job, plan: ExportPlan, sources: Sequence[Source]) -> str:
    """The identity of a job with all its inputs, by which the pool remembers jobs that killed workers."""
    inputs = (type(job).__name__, [source.sha256 for source in sources], plan, _encodings(job))
    return hashlib.sha256(repr(inputs).encode()).hexdigest()


def _with_base_warning(outcome: Outcome, base: Base | None) -> Outcome:
    if base is None or base.fault is None or not isinstance(outcome, ExportOutcome):
        return outcome
    return replace(outcome, warnings=(ExportWarning("composite_failed", base.fault), *outcome.warnings))
