"""Standard input, output and error of the commands, any of which may be closed, or closed meanwhile."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

import click

from service.errors import InvalidField
from service.quoting import visible

STDIN = "-"


def read_standard_input(size: int) -> bytes:
    """All of it, up to `size` bytes; raises InvalidField when it is closed, OSError when it cannot be read."""
    # Typed as always there, but Python leaves it out where descriptor 0 is closed.
    stdin = cast("TextIO | None", sys.stdin)
    if stdin is None:
        raise InvalidField("standard input is closed")
    try:
        return stdin.buffer.read(size)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), "standard input") from error


def warn(text: str) -> None:
    """Print a line on standard error, with control characters as visible escapes."""
    click.echo(visible(text), err=True)


def print_line(line: bytes) -> None:
    """Print a line as it is, whatever the locale; raises OSError when nobody takes it."""
    try:
        click.echo(line)
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from error


@contextlib.contextmanager
def lasting_streams() -> Iterator[None]:
    """Let no closed terminal or pipe end the work, or change the exit status once all is done."""
    sys.stderr = cast("TextIO", _Lasting(cast("TextIO | None", sys.stderr)))
    try:
        yield
    finally:
        try:
            click.echo(nl=False)
        except OSError:
            # The interpreter would try again at exit, and fail with status 120.
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it stays open for the rest of the process


class _Lasting:
    """A text stream that drops what it cannot write."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or open(os.devnull, "w")  # noqa: SIM115 - it stays open for the rest of the process

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
