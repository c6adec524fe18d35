"""The standard streams of the commands, any of which may be closed at the start or later."""

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
    """Read up to `size` bytes; raises InvalidField when it is closed, OSError when it cannot be read."""
    # None if descriptor 0 was closed at the start, against its type.
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


def print_text(line: str) -> None:
    """Print a line in UTF-8; file names that are not UTF-8 are printed as they are."""
    print_line(line.encode(errors="surrogateescape"))


def print_line(line: bytes) -> None:
    """Print bytes as they are, whatever the locale; raises OSError, such as BrokenPipeError."""
    try:
        click.echo(line)
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from error


@contextlib.contextmanager
def tolerant_streams() -> Iterator[None]:
    """Ignore a closed stderr, so that it does not end the work, and a closed stdout in the flush at exit."""
    sys.stderr = cast("TextIO", _TolerantStream(cast("TextIO | None", sys.stderr)))
    try:
        yield
    finally:
        try:
            click.echo(nl=False)
        except OSError:
            # At exit the interpreter would flush it again, fail, and exit with status 120.
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it stays open for the rest of the process


class _TolerantStream:
    """A text stream that drops text it cannot write."""

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
