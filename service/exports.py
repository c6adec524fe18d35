"""`ImageExportService`: one picture to files in several formats, for the HTTP service, the commands and Python."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from service.arguments import (
    animate_choice,
    base_path,
    byte_budgets,
    dimensions,
    echoed_metadata,
    focus_point,
    picture_data,
    provenance_choice,
    requested_formats,
)
from service.bases import REFERENCE_ENCODING, REFERENCE_PLAN, Base, Needs, SharedBase, Source, lost_base, source_of
from service.encodings import default_encodings
from service.errors import (
    ImageError,
    NotFound,
    SettingsError,
    StorageFull,
    StorageUnavailable,
    UnsupportedImage,
)
from service.imaging.formats import SNIFF_BYTES, Encoding, Format, sniff
from service.imaging.frame import Frame, Size
from service.imaging.plan import (
    Animate,
    ExportPlan,
    ExportWarning,
    Picture,
    Priority,
    Provenance,
    StepTime,
    WorkerLimits,
)
from service.outcomes import refusal, require_files
from service.publishing import ExportSet, Publisher
from service.rendering import Renderer
from service.retention import sweep_area
from service.settings import Settings, load_settings
from service.spans import add_span, span
from service.store.holds import Hold, held
from service.store.layout import AREAS, PRIVATE, SHARED, Layout
from service.store.local import LocalStore
from service.urls import Links
from service.workers.pool import WorkerPool
from service.workers.tempdir import use_temp_directory

__all__ = ["ImageError", "ImageExportService", "Source", "source_of"]

log = logging.getLogger(__name__)


class ExportResult(dict[str, dict[str, Any]]):
    """Format -> its export, with the members of the HTTP answer; `warnings` are problems that did not stop them."""

    def __init__(self, exports: Mapping[str, dict[str, Any]], warnings: Sequence[ExportWarning]) -> None:
        super().__init__(exports)
        self.warnings = list(warnings)


@dataclass(slots=True)
class ExportEvents:
    """Callbacks.

    warn(code)                   for each warning
    worker(event)                for each event of the pool
    step(name, format, seconds)  for each step of an export; `format` None: all formats share it
    notice(line)                 for the operator
    """

    warn: Callable[[str], None] = field(default=lambda code: None)
    worker: Callable[[str], None] = field(default=lambda event: None)
    step: Callable[[str, Format | None, float], None] = field(default=lambda step, name, seconds: None)
    notice: Callable[[str], None] = log.warning


class ImageExportService:
    """Exports pictures as PNG, JPEG, WebP, AVIF and GIF files with links. An async context manager.

    Without arguments the settings are read from the environment. Without `async with` the workers start with the
    first picture and end with the interpreter.
    """

    def __init__(self, settings: Settings | None = None, events: ExportEvents | None = None) -> None:
        self.settings = settings or load_settings()
        modes = SHARED if self.settings.storage_mode == "shared" else PRIVATE
        self.store = LocalStore(Layout({area: self.settings.area(area) for area in AREAS}), modes)
        self.store.prepare()
        self.links = Links(self.settings)
        self.publisher = Publisher(self.store, self.links)
        self._events = events or ExportEvents()
        self._choose_temp_directory()
        self.pool = WorkerPool(
            self.settings.export_workers,
            WorkerLimits(
                self.settings.max_image_pixels,
                self.settings.worker_memory_mb * 1024 * 1024,
                self.settings.export_timeout_seconds,
                self.settings.max_animation_frames,
                self.settings.max_animation_pixels,
            ),
            report=self._events.worker,
        )
        self._renderer = Renderer(self.pool, self.store, self.settings.max_image_pixels)

    def _choose_temp_directory(self) -> None:
        """Make sure that the fork server of the workers has a directory for its socket; raises SettingsError."""
        try:
            moved = use_temp_directory(str(self.store.layout.roots["temp"]))
        except OSError as error:
            raise SettingsError(str(error)) from None
        if moved:
            self._events.notice(moved)

    async def __aenter__(self) -> "ImageExportService":
        try:
            await self.pool.start()
        except BaseException:
            # Otherwise workers would go on starting, and print tracebacks when the interpreter ends.
            await self.pool.close()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.pool.close()

    async def process_and_export_image(
        self,
        image_data: bytes | bytearray | memoryview,
        base_image_path: str | os.PathLike[str] | None = None,
        normalize_dimensions: Size | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        formats: Sequence[str] | None = None,
        provenance: Provenance = "keep",
        focus: tuple[float, float] | Literal["auto"] | None = None,
        max_bytes: int | Mapping[str, int] | None = None,
        allow_resize: bool = False,
        animate: Animate = "first",
    ) -> ExportResult:
        """Export a PNG, JPEG, WebP or GIF picture in `formats`, of exactly `normalize_dimensions` pixels if given.

        With `base_image_path` the result is 70 % picture and 30 % base. `metadata` is echoed in each export. The other
        arguments are the fields of these names of `/api/exports`, with the same rules and defaults.
        Raises TypeError or ValueError for wrong arguments, RuntimeError where no worker can be used (in a second event
        loop, after a fork, in a daemonic process), ImageError for a picture that cannot be decoded, NoExport if every
        format failed, and StorageFull or StorageUnavailable. A base that cannot be used, or a format that fails, is a
        warning in the result instead.
        """
        data, path, echo = picture_data(image_data), base_path(base_image_path), echoed_metadata(metadata)
        width, height = dimensions(normalize_dimensions)
        requested = requested_formats(formats, self.settings.formats)
        budgets = byte_budgets(max_bytes, allow_resize, requested)
        plan = ExportPlan(
            Frame(width, height),
            matte=self.settings.matte_rgb,
            focus=focus_point(focus),
            provenance=provenance_choice(provenance),
            budgets=budgets,
            animate=animate_choice(animate, budgets),
        )
        self.pool.claim()
        async with held() as hold, self.spooled(data) as source:
            base = await self.base_at(path, hold) if path is not None else None
            exported = await self.export(source, base, plan, self.encodings(requested))
        return self._result(exported, echo)

    def _result(self, exported: ExportSet, echo: Mapping[str, Any]) -> ExportResult:
        exports: dict[str, dict[str, Any]] = {
            name: asdict(export) | {"file_path": self.store.local(export.file_path), "metadata": dict(echo)}
            for name, export in exported.exports.items()
        }
        return ExportResult(exports, exported.warnings)

    def cleanup_temp_files(self, days: float | None = None) -> int:
        """Remove temp files older than `days` (None: the setting); returns how many. ValueError unless days > 0."""
        return sweep_area(self.settings, "temp", days).files

    def cleanup_output_files(self, days: float | None = None) -> int:
        """Remove exports older than `days` (None: the setting); returns how many. ValueError unless days > 0."""
        return sweep_area(self.settings, "output", days).files

    def encodings(self, formats: Sequence[Format] | None = None) -> tuple[Encoding, ...]:
        """An encoding for each format (None: FORMATS), as the settings say."""
        encodings = default_encodings(self.settings)
        return tuple(encodings[name] for name in formats or self.settings.formats)

    async def inspect(self, source: Source) -> Picture:
        """Read a picture's size and format from its headers, in a worker; raises ImageError, StorageUnavailable."""
        outcome = await self._renderer.inspect(source)
        if isinstance(outcome, Picture):
            return outcome
        raise refusal(outcome)

    async def check(self, source: Source, needs: Needs) -> SharedBase:
        """Decode a base in full, and prepare what its order needs; raises ImageError, NotFound.

        Enter `used()` of the result at once: it removes the prepared files at its end.
        """
        outcome = await self._renderer.check(source, needs)
        if isinstance(outcome, SharedBase):
            return outcome
        raise refusal(outcome)

    async def source_at(self, path: str) -> Source:
        """A picture on this machine as it stands; raises UnsupportedImage, OSError."""
        return await asyncio.to_thread(source_of, path)

    async def base_at(self, path: str, hold: Hold) -> Base:
        """The base at `path`; exports are made without it, and with a warning, if it cannot be used."""
        try:
            await self.store.hold_path(path, hold)
            return Base(await asyncio.to_thread(source_of, path))
        except (NotFound, StorageUnavailable, UnsupportedImage, OSError):
            return lost_base(path)

    async def export(
        self,
        source: Source,
        base: Base | None,
        plan: ExportPlan,
        encodings: Sequence[Encoding],
        priority: Priority = Priority.OTHER,
        stem: str | None = None,
    ) -> ExportSet:
        """Decode a picture once, encode it in each format, and publish the files.

        Their names begin with `stem`, or are random. Raises ImageError, NoExport, StorageFull, StorageUnavailable.
        """
        with span("export", priority=priority.name.lower()):
            async with held() as hold, self.publisher.temp_files([each.format for each in encodings], hold) as temps:
                targets = [(encoding, self.store.local(temps[encoding.format])) for encoding in encodings]
                outcome = require_files(await self._renderer.export(source, base, plan, targets, priority))
                start, clock = time.time(), time.perf_counter()
                exports = await self.publisher.publish(outcome, temps, stem)
                published = StepTime("publish", None, start, time.perf_counter() - clock)
            self._report_steps((*outcome.steps, published))
        for warning in outcome.warnings:
            log.warning("warning: %s %s", warning.code, warning.format or "")
            self._events.warn(warning.code)
        return ExportSet(
            outcome.picture, outcome.size, outcome.composited, exports, outcome.warnings, mark=outcome.mark
        )

    def _report_steps(self, steps: Iterable[StepTime]) -> None:
        for each in steps:
            self._events.step(each.step, each.format, each.seconds)
            add_span(each.step, each.start, each.seconds, **({"format": each.format} if each.format else {}))

    async def export_all(
        self, source: Source, base: Base | None, plan: ExportPlan, encodings: Sequence[Encoding]
    ) -> ExportSet:
        """Like `export`, but raises StorageFull, and leaves no file, if there is no space for one of them."""
        exported = await self.export(source, base, plan, encodings)
        if exported.ran_out_of_space:
            await self.publisher.discard(exported)
            raise StorageFull("no space is left for all of the exports; none was kept")
        return exported

    @contextlib.asynccontextmanager
    async def spooled(self, data: bytes) -> AsyncIterator[Source]:
        """A picture from memory as a temp file, for as long as the context is open.

        Raises StorageFull, StorageUnavailable.
        """
        async with held() as hold:
            [key] = await self.store.reserve(1, hold)
            try:
                sha256 = await self.store.fill(key, data)
                yield Source(self.store.local(key), sha256, len(data), sniff(data[:SNIFF_BYTES]))
            finally:
                await self.store.remove([key])

    @contextlib.asynccontextmanager
    async def as_jpeg(self, source: Source) -> AsyncIterator[str]:
        """The key of a temporary JPEG of a picture, small enough to send to Gemini; raises ImageError, StorageFull."""
        async with held() as hold, self.publisher.temp_files(["jpeg"], hold) as temps:
            targets = [(REFERENCE_ENCODING, self.store.local(temps["jpeg"]))]
            require_files(await self._renderer.export(source, None, REFERENCE_PLAN, targets, Priority.PAID))
            yield temps["jpeg"]
