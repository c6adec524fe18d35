"""Secrets in files, as Docker, Kubernetes and systemd provide them."""

import logging
import os
import stat
from pathlib import Path

log = logging.getLogger(__name__)

MAX_SECRET_FILE = 1024 * 1024


def read_secret_file(path: Path) -> str:
    """The text of a regular file, links followed; raises ValueError with the reason.

    It shows neither path nor content: a secret that was set in place of its file must not be in the log.
    """
    try:
        # A FIFO without a writer would block for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError("it is not a regular file")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(MAX_SECRET_FILE + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from None
    if len(data) > MAX_SECRET_FILE:
        raise ValueError(f"it has more than {MAX_SECRET_FILE} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None


def read_secret(path: Path) -> str:
    """The only line of a file, without white space around it; raises ValueError with the reason."""
    text = read_secret_file(path).strip()
    if not text:
        raise ValueError("it is empty")
    if not text.isprintable():
        raise ValueError("it must be one line without control characters")
    return text


def warn_if_exposed(variable: str, path: Path | None) -> None:
    """Warn if everyone on this machine may read the file that a variable names."""
    try:
        exposed = path and path.stat().st_mode & stat.S_IROTH
    except OSError:
        return
    if exposed:
        log.warning("%s can be read by every user of this machine: take that right away (chmod o-r)", variable)
