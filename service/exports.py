"""One picture -> its exports: `ImageExportService`, for the HTTP service, the command line and your own Python."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from service.arguments import base_path, dimensions, echoed, picture_data
from service.bases import REFERENCE_ENCODING, REFERENCE_PLAN, Base, Needs, SharedBase, Source, source_of
from service.encodings import default_encodings
from service.errors import (
    ImageError,
    NoExport,
    NotFound,
    ServiceError,
    SettingsError,
    StorageFull,
    StorageUnavailable,
    UnsupportedImage,
    image_error,
)
from service.imaging.errors import ImagingError, Unreadable
from service.imaging.formats import SNIFF_BYTES, TABLE, Encoding, Format, sniff
from service.imaging.frame import Frame, Size
from service.imaging.plan import (
    ExportOutcome,
    ExportPlan,
    ExportWarning,
    MadeFile,
    Outcome,
    Picture,
    Priority,
    WorkerLimits,
)
from service.rendering import Renderer
from service.retention import sweep_area
from service.settings import Settings, load_settings
from service.store.holds import Hold, held
from service.store.layout import AREAS, PRIVATE, SHARED, Layout, export_key, export_stem
from service.store.local import LocalStore
from service.urls import Links
from service.workers.pool import WorkerPool
from service.workers.tempdir import use_temp_directory

__all__ = ["ImageError", "ImageExportService", "Source", "source_of"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Export:
    """One published file; `size` in bytes."""

    format: Format
    key: str
    url: str
    size: int
    sha256: str
    width: int
    height: int
    exported_at: datetime

    def answer(self, file_path: str | None = None) -> dict[str, Any]:
        """As the contract shows it; `file_path` is the key unless the caller may know the machine."""
        return {
            "format": TABLE[self.format].pillow,
            "url": self.url,
            "file_path": file_path or self.key,
            "size": self.size,
            "exported_at": self.exported_at.isoformat(timespec="microseconds"),
            "width": self.width,
            "height": self.height,
            "content_type": TABLE[self.format].mime,
            "sha256": self.sha256,
        }


@dataclass(frozen=True, slots=True)
class ExportSet:
    """What came of one picture."""

    picture: Picture
    normalized_to: Size
    composited: bool
    exports: tuple[Export, ...]
    warnings: tuple[ExportWarning, ...]

    @property
    def ran_out_of_space(self) -> bool:
        return any(warning.code == StorageFull.code for warning in self.warnings)


class Exports(dict[str, dict[str, Any]]):
    """Format -> its export; `warnings` lists what went wrong and was lived with."""

    def __init__(self, exports: Mapping[str, dict[str, Any]], warnings: Sequence[ExportWarning]) -> None:
        super().__init__(exports)
        self.warnings = list(warnings)


@dataclass(slots=True)
class ExportEvents:
    """Where the service tells what happens: `warn(code)`, `worker(event)`, and `notice(line)` for the operator."""

    warn: Callable[[str], None] = field(default=lambda code: None)
    worker: Callable[[str], None] = field(default=lambda event: None)
    notice: Callable[[str], None] = log.warning


class ImageExportService:
    """Turns pictures into PNG, JPEG and WebP files behind links. An async context manager.

    Without arguments it reads the environment. Without `async with` the workers start at the first picture
    and end with the interpreter.
    """

    def __init__(self, settings: Settings | None = None, events: ExportEvents | None = None) -> None:
        self.settings = settings or load_settings()
        modes = SHARED if self.settings.storage_mode == "shared" else PRIVATE
        self.store = LocalStore(Layout({area: self.settings.area(area) for area in AREAS}), modes)
        self.store.prepare()
        self.links = Links(self.settings)
        self._events = events or ExportEvents()
        self._settle_temp_directory()
        self.pool = WorkerPool(
            self.settings.export_workers,
            WorkerLimits(self.settings.max_image_pixels, self.settings.worker_memory_mb * 1024 * 1024),
            self.settings.export_timeout_seconds,
            report=self._events.worker,
        )
        self._renderer = Renderer(self.pool, self.store, self.settings.max_image_pixels)

    def _settle_temp_directory(self) -> None:
        """The workers' fork server needs one; a start without it could only fail again and again."""
        try:
            moved = use_temp_directory(str(self.store.layout.roots["temp"]))
        except OSError as error:
            raise SettingsError(str(error)) from None
        if moved:
            self._events.notice(moved)

    async def __aenter__(self) -> "ImageExportService":
        await self.pool.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.pool.close()

    async def process_and_export_image(
        self,
        image_data: bytes | bytearray | memoryview,
        base_image_path: str | os.PathLike[str] | None = None,
        normalize_dimensions: Size | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Exports:
        """Export a PNG, JPEG or WebP picture in all three formats, of exactly `normalize_dimensions` pixels if given.

        With `base_image_path` the result is 70 % picture and 30 % base. `metadata` is echoed in each export.
        Raises TypeError and ValueError for arguments of another kind, RuntimeError where no worker could be used
        (beside another event loop, after a fork, in a daemonic process), ImageError when the picture cannot be read,
        and StorageFull or StorageUnavailable for the disk; a base that cannot be used, or a format that fails, is
        named in the result's `warnings` instead.
        """
        data, path, echo = picture_data(image_data), base_path(base_image_path), echoed(metadata)
        width, height = dimensions(normalize_dimensions)
        self.pool.claim()
        plan = ExportPlan(Frame(width, height), matte=self.settings.matte_rgb)
        async with held() as hold, self._temps(1, hold) as (key,):
            sha256 = await self.store.fill(key, data)
            source = Source(self.store.local(key), sha256, len(data), sniff(data[:SNIFF_BYTES]))
            base = await self.base_at(path, hold) if path is not None else None
            exported = await self.export(source, base, plan, self.encodings())
        exports: dict[str, dict[str, Any]] = {
            export.format: export.answer(self.store.local(export.key)) | {"metadata": echo.copy()}
            for export in exported.exports
        }
        return Exports(exports, exported.warnings)

    def cleanup_temp_files(self, days: float | None = None) -> int:
        """Remove temp files older than `days` (None: the setting); returns how many. ValueError unless days > 0."""
        return sweep_area(self.settings, "temp", days).files

    def cleanup_output_files(self, days: float | None = None) -> int:
        """Remove exports older than `days` (None: the setting); returns how many. ValueError unless days > 0."""
        return sweep_area(self.settings, "output", days).files

    def encodings(self) -> tuple[Encoding, ...]:
        """Every format, as the settings have it."""
        return tuple(default_encodings(self.settings).values())

    async def inspect(self, source: Source) -> Picture:
        """Decode a picture in full; raises ImageError when it cannot be used."""
        outcome = await self._renderer.inspect(source)
        if isinstance(outcome, Picture):
            return outcome
        raise _refused(outcome)

    async def check(self, source: Source, needs: Needs) -> SharedBase:
        """Decode a base in full, and keep what its order needs of it; raises ImageError, NotFound. Use it at once."""
        outcome = await self._renderer.check(source, needs)
        if isinstance(outcome, SharedBase):
            return outcome
        raise _refused(outcome)

    async def base_at(self, path: str, hold: Hold) -> Base:
        """A base for exports that are made without it if it cannot be used."""
        try:
            await self.store.hold_path(path, hold)
            return Base(await asyncio.to_thread(source_of, path))
        except (NotFound, StorageUnavailable, UnsupportedImage, OSError):
            return Base(Source(path, "", 0, None), fault="the base picture cannot be opened")

    async def export(
        self,
        source: Source,
        base: Base | None,
        plan: ExportPlan,
        encodings: Sequence[Encoding],
        priority: Priority = Priority.OTHER,
    ) -> ExportSet:
        """Decode once, encode each format, publish; raises ImageError, NoExport, StorageFull, StorageUnavailable."""
        async with held() as hold, self._temps(len(encodings), hold) as temps:
            targets = tuple(zip(encodings, map(self.store.local, temps), strict=True))
            outcome = _made(await self._renderer.export(source, base, plan, targets, priority))
            exports = await self._publish(outcome, temps)
        for warning in outcome.warnings:
            log.warning("step back: %s %s", warning.code, warning.format or "")
            self._events.warn(warning.code)
        return ExportSet(outcome.picture, outcome.size, outcome.composited, exports, outcome.warnings)

    @contextlib.asynccontextmanager
    async def _temps(self, count: int, hold: Hold) -> AsyncIterator[list[str]]:
        """Keys of held temp files for a worker to fill; what is not published is removed."""
        temps = await self.store.reserve(count, hold)
        try:
            yield temps
        finally:
            if temps:
                await self.store.remove(temps)

    async def _publish(self, outcome: ExportOutcome, temps: list[str]) -> tuple[Export, ...]:
        """Move what was made; what is left in `temps` is not."""
        stem = export_stem()
        exports = tuple(self._export(made, stem, outcome.size) for made in outcome.files)
        by_path = {self.store.local(temp): temp for temp in temps}
        moves = [(by_path[made.path], export.key) for made, export in zip(outcome.files, exports, strict=True)]
        await self.store.publish(moves)
        for temp, _ in moves:
            temps.remove(temp)
        return exports

    def _export(self, made: MadeFile, stem: str, size: Size) -> Export:
        key = export_key(stem, made.format)
        url = self.links.build(key.partition("/")[2])
        return Export(made.format, key, url, made.size, made.sha256, *size, datetime.now(UTC))

    async def discard(self, exported: ExportSet) -> None:
        """Take back what was published."""
        await self.store.remove([export.key for export in exported.exports])

    @contextlib.asynccontextmanager
    async def as_jpeg(self, source: Source) -> AsyncIterator[str]:
        """The key of a temporary JPEG of a picture, small enough to send along; raises ImageError, StorageFull."""
        async with held() as hold, self._temps(1, hold) as temps:
            targets = ((REFERENCE_ENCODING, self.store.local(temps[0])),)
            _made(await self._renderer.export(source, None, REFERENCE_PLAN, targets, Priority.PAID))
            yield temps[0]


def _made(outcome: Outcome) -> ExportOutcome:
    if not isinstance(outcome, ExportOutcome):
        raise _refused(outcome)
    if not outcome.files:
        raise _no_files(outcome)
    return outcome


def _refused(outcome: object) -> ServiceError:
    if isinstance(outcome, Unreadable):
        return StorageUnavailable(outcome.detail)
    if isinstance(outcome, ImagingError):
        return image_error(outcome.code, outcome.detail)
    return NoExport(f"a worker answered {type(outcome).__name__}")


def _no_files(outcome: ExportOutcome) -> ServiceError:
    codes = {step.code for step in outcome.warnings}
    detail = "; ".join(step.detail for step in outcome.warnings if step.format) or "no format was asked for"
    return StorageFull("no space is left in temp/") if StorageFull.code in codes else NoExport(detail)
