"""A private directory for the fork server's socket, which exists only until the fork server listens."""

import contextlib
import multiprocessing
import os
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

# TEMP_DIR of the first service, for when the system's temporary directory cannot hold a socket.
_spare: str | None = None


def use_temp_directory(spare: str) -> str | None:
    """Use `spare` for the fork server's socket whenever the system's temporary directory cannot hold it.

    If that is so now, returns a line for the operator, once per process. Raises OSError if `spare` cannot either.
    """
    global _spare
    fault = _fault(None)
    if fault is None or _spare:
        _spare = _spare or spare
        return None
    usual = f"TMPDIR={os.environ.get('TMPDIR', '')!r} cannot hold the workers' socket ({fault})"
    if spare_fault := _fault(spare):
        raise OSError(
            f"{usual}, nor can TEMP_DIR={spare!r} ({spare_fault}): a writable directory with a short path is needed"
        )
    _spare = spare
    return f"{usual}: it is made in TEMP_DIR={spare!r}"


@contextlib.contextmanager
def socket_directory() -> Iterator[None]:
    """Have multiprocessing create its sockets in a private directory, removed at the end; raises OSError."""
    config: dict[str, Any] = multiprocessing.current_process()._config  # type: ignore[attr-defined]  # not in typeshed
    before = config.get("tempdir")
    with _private_directory(_spare if _spare and _fault(None) else None) as made:
        config["tempdir"] = made
        try:
            yield
        finally:
            config["tempdir"] = before


@contextlib.contextmanager
def _private_directory(parent: str | None) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="pymp-", dir=parent) as made:
        os.chmod(made, 0o700)  # whatever the umask is
        yield made


def _fault(parent: str | None) -> str | None:
    """Why no socket can be created below a directory (None: the system's temporary one); None if one can."""
    try:
        with _private_directory(parent) as made, socket.socket(socket.AF_UNIX) as probe:
            # A name as long as multiprocessing's.
            probe.bind(os.path.join(made, "listener-12345678"))
    except OSError as error:
        return error.strerror or str(error)
    return None
