"""Servers to measure: started on a loopback port, measured by way of /proc, ended by their pids."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 60
STOP_SECONDS = 15
TICKS = os.sysconf("SC_CLK_TCK")

# The service as it is started by hand, and without a Gemini to call, so that nothing can be spent.
SERVE = ("-m", "service", "serve")
NO_GEMINI = {"GEMINI_API_KEY": "none", "GEMINI_BASE_URL": "http://127.0.0.1:9", "LOG_LEVEL": "info"}


@dataclass(frozen=True, slots=True)
class Checkout:
    """A working tree of this project, and the Python interpreter that has its libraries."""

    folder: Path
    python: str


HERE = Checkout(Path(__file__).parents[1], sys.executable)


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a process tree in MB; in `pss` a page that several processes share counts once."""

    pss: float
    rss: float


@dataclass(frozen=True, slots=True)
class Server:
    """A process that listens on `port` of the loopback interface, with its children."""

    pid: int
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def tree(self) -> list[int]:
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
        pids = [self.pid]
        for pid in pids:
            pids += children.get(pid, [])
        return pids

    def cpu_seconds(self) -> float:
        """Of the live processes and of the children that they have waited for."""
        return sum(sum(map(int, _stat(pid)[11:15])) for pid in self.tree()) / TICKS

    def memory(self) -> Memory:
        sums = dict.fromkeys(("Pss:", "Rss:"), 0)
        for pid in self.tree():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    name, value = line.split()[:2]
                    if name in sums:
                        sums[name] += int(value)
        return Memory(sums["Pss:"] / 1024, sums["Rss:"] / 1024)

    def own_rss_kb(self) -> int:
        """Resident memory of the first process alone."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") // 1024

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))


def _stat(pid: int) -> list[str]:
    """The fields of /proc/pid/stat after the process name, which may hold any character: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(
    command: Sequence[str],
    port: int,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    directory: Path = HERE.folder,
) -> Iterator[Server]:
    """Run a server in `directory` until the end of the context; its output goes to a log in `folder`."""
    log = folder / f"{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=directory,
            env=clean_environment() | dict(environment or {}),
        )
    server = Server(process.pid, port, log)
    try:
        _await(server, process)
        yield server
    finally:
        _end(server, process)


def clean_environment() -> dict[str, str]:
    """Our environment without any setting of the service."""
    names = ("PATH", "HOME", "LANG", "TMPDIR")
    return {name: os.environ[name] for name in names if name in os.environ}


def _await(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), 1):
            return
        time.sleep(0.05)
    raise SystemExit(f"{process.args!r} does not listen: {server.log.read_text()[-2000:]}")


def _end(server: Server, process: subprocess.Popen[bytes]) -> None:
    pids = server.tree() if process.poll() is None else []
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def service(
    folder: Path,
    checkout: Checkout = HERE,
    arguments: Sequence[str] = SERVE,
    wrapper: Sequence[str] = (),
    **settings: str,
) -> Iterator[Server]:
    """The service of a checkout, its storage below `folder`; settings by their variables' names, empty ones unset.

    `arguments` are Python's; `wrapper` is a command that runs Python, such as valgrind.
    """
    port = free_port()
    environment = NO_GEMINI | {"STORAGE_DIR": str(folder / f"storage-{port}"), "PORT": str(port)} | settings
    environment = {name: value for name, value in environment.items() if value}
    # The working directory decides which checkout `-m` finds the service in.
    with serving((*wrapper, checkout.python, *arguments), port, folder, environment, checkout.folder) as server:
        yield server


@contextlib.contextmanager
def gemini(folder: Path, delay_seconds: float = 0) -> Iterator[Server]:
    """A local Gemini that answers each call after the delay with a plain picture."""
    port = free_port()
    with serving((HERE.python, "-m", "bench.gemini", str(port), str(delay_seconds)), port, folder) as server:
        yield server
