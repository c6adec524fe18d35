"""The directory in which multiprocessing makes the fork server's socket."""

import multiprocessing.util
import os
import socket
import tempfile
import threading

_lock = threading.Lock()
_settled = False


def use_temp_directory(spare: str) -> str | None:
    """Settle, once a process, on the machine's temporary directory, or on `spare` if that cannot hold a socket.

    Returns a line for the operator where it is `spare`; raises OSError, with such a line, where neither will do.
    """
    global _settled
    with _lock:
        fault = None if _settled else _fault(None)
        if fault is None:
            return None
        usual = f"TMPDIR={os.environ.get('TMPDIR', '')!r} cannot hold the workers' socket ({fault})"
        if spare_fault := _fault(spare):
            raise OSError(
                f"{usual}, nor can TEMP_DIR={spare!r} ({spare_fault}): a writable directory with a short path is needed"
            )
        _settle_on(spare)
        _settled = True
        return f"{usual}: it is made in TEMP_DIR={spare!r}"


def _fault(directory: str | None) -> str | None:
    """Why no socket can be made in a directory, None: the machine's, as multiprocessing does it; None if it can."""
    try:
        with (
            tempfile.TemporaryDirectory(prefix="pymp-", dir=directory) as made,
            socket.socket(socket.AF_UNIX) as probe,
        ):
            # As long a name as that of the socket to come.
            probe.bind(os.path.join(made, "listener-12345678"))
    except OSError as error:
        return error.strerror or str(error)
    return None


def _settle_on(directory: str) -> None:
    """Have multiprocessing make its directory now, which it keeps, while this is the temporary directory."""
    before, tempfile.tempdir = tempfile.tempdir, directory
    try:
        multiprocessing.util.get_temp_dir()
    finally:
        tempfile.tempdir = before
