"""The commands that make pictures: `generate` and `export`."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import BaseModel

from service.backend import gemini_service
from service.bases import Source, source_of
from service.callers import Caller
from service.errors import InvalidField, RequestError, ServiceError, TooLarge
from service.exports import ExportEvents, ImageExportService
from service.imaging.errors import ImpossibleFrame
from service.imaging.formats import TABLE, Encoding
from service.imaging.frame import Frame
from service.jobs.job import COMMAND_LINE, ROUTE, Submission
from service.jobs.jobs import JobService
from service.ledger.ledger import ledger_access, open_ledger
from service.orders import Event, Failed, Order, Variation
from service.publishing import ExportSet
from service.schemas.answers import ThumbnailsAnswer, exports_answer, thumbnails_answer
from service.schemas.fields import Fields
from service.schemas.headers import fingerprint
from service.schemas.outcomes import outcome_of
from service.schemas.requests import read_export, read_order, too_long
from service.schemas.table import MAX_SCRIPT
from service.settings import Settings
from service.signals import STOP_SIGNALS, on_stop_signal
from service.store.disk import start_disk_threads
from service.store.holds import held
from service.store.layout import request_id
from service.streams import STDIN, print_line, read_standard_input, warn
from service.thumbnails import ThumbnailService

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

EXIT_FAULT, EXIT_PARTIAL = 1, 3

# UTF-8 takes at most 4 bytes a character; a byte order mark, which is not part of the script, takes 3.
MAX_SCRIPT_BYTES = 4 * MAX_SCRIPT + 3


def read_script(argument: str | None, path: str | None) -> str:
    """The script from the argument, a file or standard input; raises OSError, InvalidField.

    Bytes that are not UTF-8 become lone surrogates, as on the command line, and are refused later.
    """
    if argument is not None and argument != STDIN:
        return argument
    if path is None or path == STDIN:
        data = read_standard_input(MAX_SCRIPT_BYTES + 1)
    else:
        with open(path, "rb") as file:
            data = file.read(MAX_SCRIPT_BYTES + 1)
    if len(data) > MAX_SCRIPT_BYTES:
        raise too_long("script")
    return data.decode("utf-8-sig", "surrogateescape")


def read_picture(max_bytes: int) -> bytes:
    """Read a picture from standard input; raises OSError, InvalidField, TooLarge."""
    data = read_standard_input(max_bytes + 1)
    if not data:
        raise InvalidField("standard input is empty: a picture is expected")
    if len(data) > max_bytes:
        raise TooLarge(f"standard input holds more than {max_bytes} bytes")
    return data


@dataclass(slots=True)
class Target:
    """The directory for the files, what is expected there, and what was written."""

    out: Path
    force: bool
    as_json: bool
    wanted: int = 0
    written: list[Path] = field(default_factory=list)

    def expect(self, names: Sequence[str], encodings: Iterable[Encoding]) -> None:
        """Raise InvalidField, before anything is spent, if a file would be overwritten; else make the directory."""
        suffixes = [TABLE[encoding.format].suffix for encoding in encodings]
        paths = [self.out / f"{name}{suffix}" for name in names for suffix in suffixes]
        # A broken symbolic link counts too: copying would follow it.
        taken = next((path for path in paths if os.path.lexists(path)), None)
        if len(set(paths)) < len(paths):
            raise InvalidField("two pictures would get the same file name")
        if taken and not self.force:
            raise InvalidField(f"{taken} exists; --force overwrites")
        self.wanted = len(paths)
        self.out.mkdir(parents=True, exist_ok=True)

    async def take(self, exports: ImageExportService, name: str, exported: ExportSet) -> None:
        """Copy the exports to the directory; one that cannot be written is a warning."""
        for warning in exported.warnings:
            warn(f"{name}: {warning.code}: {warning.detail}")
        for kind, export in exported.exports.items():
            path = self.out / f"{name}{TABLE[kind].suffix}"
            try:
                await exports.store.copy_out(export.file_path, path, overwrite=self.force)
            except OSError as error:
                warn(f"{path}: {error.strerror}; it is kept as {export.file_path}")
            else:
                self.written.append(path)

    def report(self, answers: Iterable[BaseModel]) -> int:
        """Print the paths, or the answers as JSON lines; returns the exit status."""
        answered = [each.model_dump_json().encode() for each in answers]
        for line in answered if self.as_json else map(os.fsencode, self.written):
            print_line(line)
        if not self.written:
            return EXIT_FAULT
        return 0 if len(self.written) == self.wanted else EXIT_PARTIAL


async def generate(
    settings: Settings, texts: Mapping[str, str], image: Path | None, key: str | None, target: Target
) -> int:
    """Make thumbnails as files `var-1.png` …; a known idempotency key gives those made before. Returns the status."""
    order = read_order(Fields(texts), settings, request_id(), None)
    target.expect([f"var-{number}" for number in range(1, order.count + 1)], order.encodings or ())
    await start_disk_threads()
    if settings.emulates:
        warn("the local emulator draws, nothing is billed")
    async with _stoppable() as stopping, AsyncExitStack() as stack:
        exports = await stack.enter_async_context(ImageExportService(settings, ExportEvents(notice=warn)))
        ledger = await stack.enter_async_context(open_ledger(ledger_access(settings)))
        if image:
            order = replace(order, base=await exports.source_at(str(image)))
        thumbnails = ThumbnailService(await stack.enter_async_context(gemini_service(settings)), exports)
        stack.push_async_callback(thumbnails.close)
        stopping.on_first = thumbnails.stop
        jobs = JobService(ledger, thumbnails, emulated=settings.emulates, budget=settings.budget_nano is not None)
        stack.push_async_callback(jobs.close)
        files = {"image": order.base} if order.base else {}
        submission = Submission(Caller(COMMAND_LINE), "sync", key, fingerprint(ROUTE, texts, files))
        bar = stack.enter_context(_progress(order.count, "variations"))
        ended = await _generated(jobs, order, submission, bar)
        for event in ended:
            if isinstance(event, Variation):
                await target.take(exports, event.id, event.exported)
    answer = thumbnails_answer(order.request_id, ended)
    _report_missing(answer, order.count)
    return target.report([answer])


async def _generated(
    jobs: JobService, order: Order, submission: Submission, bar: "ProgressBar[int]"
) -> list[Variation | Failed]:
    """Run an order, or find the one that has its key, and show its progress; returns what became of it.

    Raises CancelledError if it was stopped before anything was sent.
    """

    def show(event: Event) -> None:
        bar.label = f"{event.id} {type(event).__name__.lower()}"
        bar.update(int(isinstance(event, Variation | Failed)))

    async with jobs.checked(order) as base:
        row, job = await jobs.begin(order, submission, None, base, on_event=show)
        if job:
            await job.ended.wait()
            if job.stopped:
                raise asyncio.CancelledError
            return job.outcomes
    _, calls = await jobs.ended(row.id, submission.caller)
    bar.update(order.count)
    last = {call.number: call for call in calls}.values()
    return [outcome for call in last if (outcome := outcome_of(call))]


def _report_missing(answer: ThumbnailsAnswer, count: int) -> None:
    for error in answer.errors:
        kept = f"; what Gemini sent is kept as {error.storage_path}" if error.storage_path else ""
        warn(f"{error.id}: {error.code}: {error.detail}{kept}")
    if unsent := count - len(answer.variations) - len(answer.errors):
        warn(f"{unsent} of {count} variations were not sent")


async def export(
    settings: Settings,
    texts: Mapping[str, str],
    pictures: Sequence[str],
    stdin: bytes | None,
    base: Path | None,
    target: Target,
) -> int:
    """Export pictures to files such as `<stem>-1280x720.png`; `-` stands for `stdin`. Returns the exit status."""
    plan, encodings = read_export(Fields(texts), settings)
    if task := asyncio.current_task():
        on_stop_signal(task.cancel)
    answers = []
    async with AsyncExitStack() as stack:
        hold = await stack.enter_async_context(held())
        exports = await stack.enter_async_context(ImageExportService(settings, ExportEvents(notice=warn)))
        spooled = None if stdin is None else await stack.enter_async_context(exports.spooled(stdin))
        under = await exports.base_at(str(base), hold) if base else None
        sources = {path: await _source_and_name(exports, path, spooled, plan.frame) for path in pictures}
        target.expect([each[1] for each in sources.values() if each], encodings)
        target.wanted = len(sources) * len(encodings)
        bar = stack.enter_context(_progress(len(sources), "pictures"))
        for path, each in sources.items():
            if each:
                source, name = each
                if exported := await _or_warning(exports.export(source, under, plan, encodings), path):
                    await target.take(exports, name, exported)
                    answers.append(exports_answer(request_id(), source.sha256, exported))
            bar.update(1)
    return target.report(answers)


async def _or_warning(exporting: Awaitable[ExportSet], path: str) -> ExportSet | None:
    """The exports; None, after a warning, if there are none."""
    try:
        return await exporting
    except ServiceError as error:
        warn(f"{path}: {error.code}: {error.detail}")
        return None


async def _source_and_name(
    exports: ImageExportService, path: str, spooled: Source | None, frame: Frame
) -> tuple[Source, str] | None:
    """A picture, and the file name of its exports without suffix; None, after a warning, if it cannot be used.

    The size in the name follows from the picture's headers, so no picture is decoded twice.
    """
    try:
        source = spooled if spooled and path == STDIN else await asyncio.to_thread(source_of, path)
        picture = await exports.inspect(source)
        width, height = frame.size((picture.width, picture.height))
    except (RequestError, ImpossibleFrame) as error:
        warn(f"{path}: {error.code}: {error.detail}")
    except OSError as error:
        warn(f"{path}: {error.strerror}")
    else:
        return source, f"{'stdin' if path == STDIN else Path(path).stem}-{width}x{height}"
    return None


def _progress(length: int, label: str) -> "ProgressBar[int]":
    return click.progressbar(length=length, label=label, file=sys.stderr, show_eta=False, width=24)


class _Stopping:
    """Handles stop signals: the first calls `on_first`, if that is set, and the next cancels the current task."""

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self.on_first: Callable[[], None] | None = None
        self.calls_given_up = False
        self._warned = False

    def signalled(self) -> None:
        if self.on_first and not self._warned:
            self._warned = True
            self.on_first()
            warn("waiting for the calls that are out; Ctrl-C again, or another signal, gives them up")
            return
        self.calls_given_up = self._warned
        # A third signal has its default effect: it ends the process.
        for number in STOP_SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)
        if self._task:
            self._task.cancel()


@asynccontextmanager
async def _stoppable() -> AsyncIterator[_Stopping]:
    """After the first Ctrl-C, SIGTERM or SIGHUP no more calls are sent, but those that may cost money are awaited.

    The second signal ends the command at once. Raises click.Abort if calls were given up, else ServiceError.
    """
    stopping = _Stopping()
    on_stop_signal(stopping.signalled)
    try:
        yield stopping
    except asyncio.CancelledError:
        if stopping.calls_given_up:
            raise click.Abort from None
        raise ServiceError("stopped before anything was sent") from None
