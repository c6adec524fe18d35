"""Publish finished files: rename them from temp/ to output/, under random names, and build their links."""

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from service.errors import StorageFull
from service.imaging.formats import TABLE, Format, PillowName
from service.imaging.frame import Size
from service.imaging.plan import ExportOutcome, ExportWarning, MadeFile, Picture
from service.imaging.provenance import Mark
from service.store.holds import Hold
from service.store.layout import export_key, export_stem
from service.store.local import LocalStore
from service.urls import Links


@dataclass(frozen=True, slots=True)
class Export:
    """One published file, with the members that answers have; `size` is in bytes.

    `format` is Pillow's name of the format, `file_path` the key of the file, `exported_at` an ISO 8601 time in UTC;
    `quality` is None for a lossless file, `colors` the limit of a palette that a byte budget chose; `frames` is 1 for a
    still.
    """

    format: PillowName
    url: str
    file_path: str
    size: int
    exported_at: str
    width: int
    height: int
    content_type: str
    sha256: str
    quality: int | None = None
    colors: int | None = None
    frames: int = 1


@dataclass(frozen=True, slots=True)
class ExportSet:
    """The exports made of one picture, by format, and the problems that did not stop them.

    `mark`: the digital source type that they are marked with.
    """

    picture: Picture
    normalized_to: Size
    composited: bool
    exports: Mapping[Format, Export]
    warnings: tuple[ExportWarning, ...]
    mark: Mark | None = None

    @property
    def ran_out_of_space(self) -> bool:
        return any(warning.code == StorageFull.code for warning in self.warnings)


class Publisher:
    """Provides temp files for a worker to fill, and renames the filled ones to their final keys."""

    def __init__(self, store: LocalStore, links: Links) -> None:
        self._store = store
        self._links = links

    @contextlib.asynccontextmanager
    async def temp_files(self, formats: Iterable[Format], hold: Hold) -> AsyncIterator[dict[Format, str]]:
        """The key of a held temp file for each format; at the end, the files that are still in the dict are removed."""
        names = tuple(formats)
        temps = dict(zip(names, await self._store.reserve(len(names), hold), strict=True))
        try:
            yield temps
        finally:
            if temps:
                await self._store.remove(temps.values())

    async def publish(
        self, outcome: ExportOutcome, temps: dict[Format, str], stem: str | None = None
    ) -> dict[Format, Export]:
        """Rename the files that a worker made, all or none, and remove them from `temps`.

        Their names begin with `stem`, else a random one. Raises StorageFull, StorageUnavailable.
        """
        stem = stem or export_stem()
        exports = {made.format: self._export(made, stem) for made in outcome.files}
        await self._store.publish([(temps[name], export.file_path) for name, export in exports.items()])
        for name in exports:
            del temps[name]
        return exports

    def _export(self, made: MadeFile, stem: str) -> Export:
        key, row = export_key(stem, made.format), TABLE[made.format]
        return Export(
            format=row.pillow,
            url=self._links.build(key.partition("/")[2]),
            file_path=key,
            size=made.size,
            exported_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            width=made.pixels[0],
            height=made.pixels[1],
            content_type=row.mime,
            sha256=made.sha256,
            quality=made.quality,
            colors=made.colors,
            frames=made.frames,
        )

    async def discard(self, exported: ExportSet) -> None:
        """Remove the published files."""
        await self._store.remove(export.file_path for export in exported.exports.values())
