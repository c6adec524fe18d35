"""The command line: serve · generate · export · cleanup · check."""

import asyncio
import sys

import click

from service.errors import SettingsError
from service.logs import set_up_logging
from service.settings import Settings, load_settings

EXIT_FAULT, EXIT_USAGE, EXIT_PARTIAL = 1, 2, 3


def _settings(**overrides: object) -> Settings:
    try:
        return load_settings(**{name: value for name, value in overrides.items() if value is not None})
    except SettingsError as error:
        _fail(str(error), EXIT_USAGE)


def _fail(message: str, status: int) -> "click.NoReturn":
    click.echo(f"error: {message}", err=True)
    sys.exit(status)


@click.group()
def main() -> None:
    pass


@main.command()
@click.option("--host")
@click.option("--port", type=int)
def serve(host: str | None, port: int | None) -> None:
    from service.serving import serve as serve_app

    settings = _settings(host=host, port=port)
    set_up_logging(settings.log_level, settings.log_format)
    try:
        asyncio.run(serve_app(settings))
    except SettingsError as error:
        _fail(str(error), EXIT_USAGE)
