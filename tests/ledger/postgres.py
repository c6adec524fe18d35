"""A PostgreSQL of Debian's packages, on a loopback port of its own, run by a user that is not root."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


def available() -> bool:
    """Whether there is a server, and a user to run it as."""
    return bool(BINARIES) and (os.geteuid() != 0 or (_user() is not None and shutil.which("setpriv") is not None))


def _user() -> str | None:
    return next((name for name in ("postgres", "nobody") if _known(name)), None)


def _known(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@contextlib.contextmanager
def server(directory: Path) -> Iterator[str]:
    """The address of a new server whose files are below `directory`; it ends with the context."""
    binaries, data = BINARIES[-1].parent, directory / "data"
    prefix: list[str] = []
    if os.geteuid() == 0:
        user = str(_user())
        prefix = ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"]
        os.chown(directory, pwd.getpwnam(user).pw_uid, -1)
    run = [*prefix, str(binaries / "initdb"), "-D", str(data), "-U", "ledger", "-A", "trust", "--no-sync", "-E", "UTF8"]
    subprocess.run(run, check=True, capture_output=True, cwd="/")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        f"port={port}",
        "-c",
        "unix_socket_directories=",
        "-c",
        "fsync=off",
    ]
    process = subprocess.Popen(
        [*prefix, str(binaries / "postgres"), "-D", str(data), *options], cwd="/", stderr=subprocess.DEVNULL
    )
    try:
        ready = [str(binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-t", "1"]
        for _ in range(300):
            if subprocess.run(ready, check=False, capture_output=True).returncode == 0:
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
                raise RuntimeError("PostgreSQL did not start")
        yield f"postgresql://ledger@127.0.0.1:{port}/postgres"
    finally:
        # SIGINT: end without waiting for sessions.
        process.send_signal(2)
        process.wait(30)
