"""The command line: serve, generate, export, cleanup, check. Paths go to stdout, progress and warnings to stderr."""

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from service.errors import RequestError, ServiceError, SettingsError
from service.imaging.formats import FORMATS, listed
from service.settings import Settings, load_settings
from service.streams import STDIN, print_text, tolerant_streams, warn

EXIT_FAULT, EXIT_USAGE = 1, 2

Command = Callable[..., None]

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
# A str, because Path("./-") equals Path("-"), which stands for standard input.
_FILE_OR_STDIN = click.Path(exists=True, dir_okay=False, allow_dash=True)
_DIRECTORY = click.Path(path_type=Path, file_okay=False)

# The export fields of the HTTP form, with the same names and rules.
_EXPORT_FIELDS = {
    "fit": "cover (default), contain or stretch",
    "focus": "where cover crops: x,y such as 0.5,0.25 (default 0.5,0.5), or auto",
    "blend": "the picture's share over its base, 0-1 (default 0.7)",
    "formats": f"comma-separated, of {listed(FORMATS, 'and')} (FORMATS)",
    "max-bytes": "most bytes of a file, or for each format such as png:200000,webp:50000",
    "allow-resize": "fewer pixels where --max-bytes demands it: true or false (default)",
    "matte": "colour under transparency, #rrggbb",
    "alpha": "flatten (default) or keep",
    "jpeg-quality": "0-100",
    "jpeg-subsampling": "4:2:0 (default), 4:2:2 or 4:4:4",
    "webp-quality": "0-100",
    "webp-lossless": "true or false (default)",
    "avif-quality": "0-100",
    "png-compression": "0-9",
    "progressive": "progressive JPEG: true or false (default)",
}


def _export_options(command: Command) -> Command:
    for name, text in reversed(_EXPORT_FIELDS.items()):
        command = click.option(f"--{name}", help=text)(command)
    for option in (
        click.option("--size", help="exact size in pixels, such as 1280x720"),
        click.option("--json", "as_json", is_flag=True, help="print the HTTP answer instead of paths"),
        click.option("--force", is_flag=True, help="overwrite files that exist"),
        click.option("--out", type=_DIRECTORY, default=Path(), help="directory for the files (default: here)"),
    ):
        command = option(command)
    return command


@contextmanager
def _errors_as_lines() -> Iterator[None]:
    """Report an error in one line on stderr, and exit with its status."""
    try:
        yield
    except SettingsError as error:
        _fail(str(error), EXIT_USAGE)
    except RequestError as error:
        _fail(error.detail, EXIT_USAGE)
    except ServiceError as error:
        _fail(error.detail, EXIT_FAULT)
    except OSError as error:
        reason = error.strerror or str(error)
        _fail(f"{error.filename}: {reason}" if error.filename else reason, EXIT_FAULT)
    except BrokenExecutor:
        _fail("no worker could be started; run image-export check for the reason", EXIT_FAULT)
    except asyncio.CancelledError:
        raise click.Abort from None


class _Commands(click.Group):
    """The group of commands. Errors are reported in one line, and closed standard streams do not end a command."""

    def main(self, *args: Any, **extra: Any) -> Any:
        with tolerant_streams(), _errors_as_lines():
            return super().main(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        # Here as well, because click.Group.main exits silently on a broken pipe.
        with _errors_as_lines():
            return super().invoke(ctx)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="image-export-pipeline")
def main() -> None:
    """Scripts in, finished pictures out: PNG, JPEG, WebP, AVIF and GIF of an exact size."""


@main.command()
@click.option("--host", help="address to listen on (HOST)")
@click.option("--port", type=int, help="port to listen on (PORT)")
def serve(host: str | None, port: int | None) -> None:
    """Run the HTTP service until SIGTERM, SIGHUP or Ctrl-C."""

    async def work(settings: Settings) -> int:
        # Bad settings end here, before the app with aiohttp and the SDK is loaded, which takes a second of CPU.
        settings.require_host()
        settings.check(serves=True, draws=True)
        from service.app import create_app
        from service.logs import set_up_logging
        from service.server import run

        set_up_logging(settings.log_level, settings.log_format, settings.secret_key)
        await run.serve(create_app(settings))
        return 0

    _run(work, host=host, port=port)


@main.command()
@click.argument("script", required=False)
@click.option("--script-file", type=_FILE_OR_STDIN, help="read the script from this file (- for standard input)")
@click.option("--image", type=_FILE, help="base picture: sent along, and blended under the result")
@click.option("--count", help="how many variations (default 1)")
@click.option("--aspect-ratio", help="such as 16:9 (default)")
@click.option("--model", help="Gemini model (GEMINI_MODEL)")
@click.option("--image-size", help="1K (default), 2K or 4K")
@click.option("--reference", help="send the base to Gemini: true (default) or false")
@click.option("--idempotency-key", help="the same request with the same key is made, and paid for, only once")
@_export_options
def generate(
    script: str | None,
    script_file: str | None,
    image: Path | None,
    idempotency_key: str | None,
    out: Path,
    force: bool,
    as_json: bool,
    **texts: str | None,
) -> None:
    """Make thumbnails of SCRIPT (- reads it from standard input): the whole job, without a server."""
    from service import commands
    from service.schemas.headers import idempotency_key as read_key

    if (script is None) == (script_file is None):
        raise click.UsageError("give either SCRIPT or --script-file")
    target = commands.Target(out, force, as_json)

    def work(settings: Settings) -> Coroutine[Any, Any, int]:
        given = {"script": commands.read_script(script, script_file)}
        key = read_key([idempotency_key]) if idempotency_key is not None else None
        return commands.generate(settings, _texts(texts) | given, image, key, target)

    _run(work)


@main.command()
@click.argument("pictures", nargs=-1, required=True, type=_FILE_OR_STDIN)
@click.option("--base", type=_FILE, help="picture to blend under the others")
@click.option("--provenance", help="the mark as generated: keep that of the pictures (default), or generated")
@click.option("--animate", flag_value="keep", help="export every frame of animations, not only the first")
@_export_options
def export(
    pictures: tuple[str, ...], base: Path | None, out: Path, force: bool, as_json: bool, **texts: str | None
) -> None:
    """Export PICTURES (- reads one from standard input) in every format: no Gemini, no server."""
    from service import commands

    target = commands.Target(out, force, as_json)

    def work(settings: Settings) -> Coroutine[Any, Any, int]:
        stdin = commands.read_picture(settings.max_upload_bytes) if STDIN in pictures else None
        return commands.export(settings, _texts(texts), pictures, stdin, base, target)

    _run(work)


@main.command()
@click.option("--dry-run", is_flag=True, help="list the files that would be removed, and remove none")
def cleanup(dry_run: bool) -> None:
    """Remove old files from all four directories, by their settings."""
    from service.cleanup import clean_up

    def work(settings: Settings) -> Coroutine[Any, Any, int]:
        return clean_up(settings, dry_run)

    _run(work)


@main.command()
@click.option("--from", "first", help="first day, such as 2026-11-26 (default: 29 days before the last)")
@click.option("--to", "last", help="last day (default: today, UTC)")
@click.option("--json", "as_json", is_flag=True, help="print the JSON of /api/usage")
def usage(first: str | None, last: str | None, as_json: bool) -> None:
    """Show the calls to Gemini and what they cost, per day."""
    from service import accounts

    def work(settings: Settings) -> Coroutine[Any, Any, int]:
        return accounts.show_usage(settings, first, last, as_json)

    _run(work)


@main.command()
def check() -> None:
    """Try settings, key, directories and workers: one line each; exit 2 on a bad setting, 1 on another fault."""
    from service import accounts
    from service.exports import ExportEvents, ImageExportService
    from service.keyring import Keyring

    async def start(service: ImageExportService) -> int:
        async with service:
            return len(service.pool.pids)

    step = "settings"
    try:
        settings = load_settings()
        settings.require_host()
        settings.check(serves=True)
        Keyring(settings).load()
        print_text("settings: ok")
        print_text(f"key: {_key_state(settings)}")
        step = "directories"
        service = ImageExportService(settings, ExportEvents(notice=print_text))
        print_text("directories: ok")
        step = "ledger"
        print_text(f"ledger: ok, {accounts.where(settings)}")
        step = "workers"
        print_text(f"workers: ok, {asyncio.run(start(service))} started")
    except (SettingsError, OSError, BrokenExecutor) as error:
        print_text(f"{step}: fault: {error}")
        sys.exit(EXIT_USAGE if isinstance(error, SettingsError) else EXIT_FAULT)


def _key_state(settings: Settings) -> str:
    if settings.gemini_api_key:
        return "ok"
    then = "the local emulator draws" if settings.emulates else "serve will not start"
    return f"warning: GEMINI_API_KEY is not set, {then}"


def _texts(options: dict[str, str | None]) -> dict[str, str]:
    """Options as form fields; `--size 1280x720` becomes width and height."""
    texts = {name: text for name, text in options.items() if text is not None}
    if size := texts.pop("size", None):
        width, _, height = size.partition("x")
        if not (width and height):
            raise click.BadParameter(f"{size!r} is not a size such as 1280x720", param_hint="--size")
        texts |= {"width": width, "height": height}
    return texts


def _run(work: Callable[[Settings], Coroutine[Any, Any, int]], **overrides: object) -> NoReturn:
    """Read the settings, do the work, exit with its status.

    `work` is called before the loop runs, where it may read standard input and Ctrl-C interrupts it.
    """
    settings = load_settings(**{name: value for name, value in overrides.items() if value is not None})
    # The commands report to the user themselves; `serve` sets up its log.
    logging.getLogger("service").addHandler(logging.NullHandler())
    sys.exit(asyncio.run(work(settings)))


def _fail(message: str, status: int) -> NoReturn:
    warn(f"error: {message}")
    sys.exit(status)
