"""The commands that make pictures: the use cases, told on a terminal."""

import asyncio
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import BaseModel

from service.backend import gemini_service
from service.bases import Source, source_of
from service.errors import InvalidField, RequestError, ServiceError
from service.exports import ExportSet, ImageExportService
from service.imaging.errors import ImpossibleFrame
from service.imaging.formats import TABLE
from service.imaging.plan import Encoding, Frame
from service.orders import Failed, Variation
from service.schemas.answers import ErrorAnswer, ThumbnailsAnswer, error_answer, exports_answer, variation_answer
from service.schemas.fields import Fields, read_export, read_order
from service.settings import Settings
from service.store.holds import held
from service.store.layout import request_id
from service.thumbnails import ThumbnailService

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

EXIT_FAULT, EXIT_PARTIAL = 1, 3


@dataclass(slots=True)
class Target:
    """Where files go, and what went there."""

    out: Path
    force: bool
    as_json: bool
    wanted: int = 0
    written: list[Path] = field(default_factory=list)

    def expect(self, names: Sequence[str], encodings: Iterable[Encoding]) -> None:
        """Refuse before anything is spent what would overwrite; raises InvalidField."""
        suffixes = [TABLE[encoding.format].suffix for encoding in encodings]
        paths = [self.out / f"{name}{suffix}" for name in names for suffix in suffixes]
        taken = next((path for path in paths if path.exists()), None)
        if len(set(paths)) < len(paths):
            raise InvalidField("two pictures would get the same file name")
        if taken and not self.force:
            raise InvalidField(f"{taken} exists; --force overwrites")
        self.wanted = len(paths)
        self.out.mkdir(parents=True, exist_ok=True)

    async def take(self, exports: ImageExportService, name: str, exported: ExportSet) -> None:
        """Copy the files out; one that cannot be written is told, and costs no other."""
        for step in exported.warnings:
            _warn(f"{name}: {step.code}: {step.detail}")
        for export in exported.exports:
            path = self.out / f"{name}{TABLE[export.format].suffix}"
            try:
                await exports.store.copy_out(export.key, path)
            except OSError as error:
                _warn(f"{path}: {error.strerror}; it is kept as {export.key}")
            else:
                self.written.append(path)

    def report(self, answers: Iterable[BaseModel]) -> int:
        """Print paths, or the answers as JSON lines; returns the exit status."""
        lines = [each.model_dump_json() for each in answers] if self.as_json else [str(path) for path in self.written]
        for line in lines:
            click.echo(line)
        if not self.written:
            return EXIT_FAULT
        return 0 if len(self.written) == self.wanted else EXIT_PARTIAL


async def generate(settings: Settings, texts: Mapping[str, str], image: Path | None, target: Target) -> int:
    """Thumbnails of a script into files `var-1.png` …"""
    order = read_order(Fields(texts), settings, request_id(), None)
    target.expect([f"var-{number}" for number in range(1, order.count + 1)], order.encodings or ())
    done, failed = [], []
    if settings.emulates:
        _warn("no Gemini key: the local emulator draws, nothing is billed")
    async with AsyncExitStack() as stack:
        exports = await stack.enter_async_context(ImageExportService(settings))
        if image:
            order = replace(order, base=await asyncio.to_thread(source_of, str(image)))
        thumbnails = ThumbnailService(await stack.enter_async_context(gemini_service(settings)), exports)
        _stop_gently(thumbnails.stop)
        bar = stack.enter_context(_progress(order.count, "variations"))
        events = await stack.enter_async_context(aclosing(thumbnails.generate(order)))
        async for event in events:
            bar.label = f"{event.id} {type(event).__name__.lower()}"
            bar.update(int(isinstance(event, Variation | Failed)))
            if isinstance(event, Variation):
                done.append(variation_answer(event))
                await target.take(exports, event.id, event.exported)
            elif isinstance(event, Failed):
                failed.append(error_answer(event))
    for failure in failed:
        _warn(_failure(failure))
    return target.report([ThumbnailsAnswer(request_id=order.request_id, variations=done, errors=failed)])


def _failure(error: ErrorAnswer) -> str:
    kept = f"; the picture is kept as {error.storage_path}" if error.storage_path else ""
    return f"{error.id}: {error.code}: {error.detail}{kept}"


async def export(
    settings: Settings, texts: Mapping[str, str], pictures: Sequence[Path], base: Path | None, target: Target
) -> int:
    """Exports of pictures into files named for their size, such as `<stem>-1280x720.png`."""
    plan, encodings = read_export(Fields(texts), settings)
    answers = []
    async with ImageExportService(settings) as exports, held() as hold:
        under = await exports.base_at(str(base), hold) if base else None
        sources = {path: await _inspected(exports, path, plan.frame) for path in pictures}
        target.expect([source[1] for source in sources.values() if source], encodings)
        target.wanted = len(sources) * len(encodings)
        with _progress(len(sources), "pictures") as bar:
            for found in sources.values():
                if found:
                    source, name = found
                    try:
                        exported = await exports.export(source, under, plan, encodings)
                    except ServiceError as error:
                        _warn(f"{source.path}: {error.code}: {error.detail}")
                    else:
                        await target.take(exports, name, exported)
                        answers.append(exports_answer(request_id(), source.sha256, exported))
                bar.update(1)
    return target.report(answers)


async def _inspected(exports: ImageExportService, path: Path, frame: Frame) -> tuple[Source, str] | None:
    """A picture and the name of its exports; None, with a word on stderr, if it cannot be used."""
    try:
        source = await asyncio.to_thread(source_of, str(path))
        picture = await exports.inspect(source)
        width, height = frame.size((picture.width, picture.height))
    except (RequestError, ImpossibleFrame) as error:
        _warn(f"{path}: {error.code}: {error.detail}")
    else:
        return source, f"{path.stem}-{width}x{height}"
    return None


def _progress(length: int, label: str) -> "ProgressBar[int]":
    return click.progressbar(length=length, label=label, file=sys.stderr, show_eta=False, width=24)


def _stop_gently(stop: Callable[[], None]) -> None:
    """The first Ctrl-C sends no more calls, but waits for those that may cost money; the second ends at once."""
    loop = asyncio.get_running_loop()

    def first() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        _warn("waiting for the calls that are out; Ctrl-C again gives them up")
        stop()

    loop.add_signal_handler(signal.SIGINT, first)


def _warn(text: str) -> None:
    click.echo(text, err=True)
