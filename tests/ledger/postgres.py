"""A PostgreSQL server of Debian's packages, on a loopback port of its own, run by a user that is not root."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.helpers import free_port

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
START_SECONDS = 60.0
STOP_SECONDS = 30.0


def available() -> bool:
    """Whether there is a server, and a user to run it as: PostgreSQL refuses to run as root."""
    return bool(BINARIES) and (os.geteuid() != 0 or (_user() is not None and shutil.which("setpriv") is not None))


def _user() -> pwd.struct_passwd | None:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None


@contextlib.contextmanager
def server(directory: Path) -> Iterator[str]:
    """The address of a new server whose files are below `directory`; it ends with the context."""
    prefix = _as_other_user(directory) if os.geteuid() == 0 else []
    binaries, data, port = BINARIES[-1].parent, str(directory / "data"), free_port()
    initdb = [str(binaries / "initdb"), "-D", data, "-U", "ledger", "-A", "trust", "--no-sync", "-E", "UTF8"]
    subprocess.run([*prefix, *initdb], check=True, capture_output=True, cwd="/")
    settings = ["listen_addresses=127.0.0.1", f"port={port}", "unix_socket_directories=", "fsync=off"]
    options = [word for setting in settings for word in ("-c", setting)]
    postgres = [str(binaries / "postgres"), "-D", data, *options]
    process = subprocess.Popen([*prefix, *postgres], cwd="/", stderr=subprocess.DEVNULL)
    try:
        _await(process, binaries, port)
        yield f"postgresql://ledger@127.0.0.1:{port}/postgres"
    finally:
        # A fast shutdown, which does not wait for sessions to end.
        process.send_signal(signal.SIGINT)
        process.wait(STOP_SECONDS)


def _as_other_user(directory: Path) -> list[str]:
    """The words before a command that run it as a user who owns `directory`."""
    user = _user()
    assert user
    os.chown(directory, user.pw_uid, -1)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _await(process: subprocess.Popen[bytes], binaries: Path, port: int) -> None:
    ready = [str(binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-t", "1"]
    deadline = time.monotonic() + START_SECONDS
    while subprocess.run(ready, check=False, capture_output=True).returncode:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("PostgreSQL did not start")
        time.sleep(0.1)
