"""Install the peers into a cache, with the clients of their registries; never into the venv of this project."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CACHE = Path.home() / ".cache" / "image-export-bench" / "peers"
INSTALL_SECONDS = 300


class MissingError(Exception):
    """A peer that cannot be installed; the message says which one, and why."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A program, the environment variables that it needs, and its version."""

    path: str
    environment: dict[str, str]
    version: str


def thumbor() -> Tool:
    """Thumbor, in its own venv."""
    return _from_pypi("thumbor", "thumbor", ("thumbor", "pillow"))


def sharp() -> Tool:
    """Node, with sharp on its module path."""
    node, npm, home = shutil.which("node"), shutil.which("npm"), CACHE / "sharp"
    if node is None or npm is None:
        raise MissingError("sharp: node and npm are not installed")
    if not (home / "node_modules" / "sharp").exists():
        home.mkdir(parents=True, exist_ok=True)
        _run("sharp", npm, "install", "--prefix", str(home), "--no-audit", "--no-fund", "--silent", "sharp")
    environment = {"NODE_PATH": str(home / "node_modules")}
    script = "const v = require('sharp').versions; console.log(`sharp ${v.sharp}, libvips ${v.vips}`)"
    version = _run("sharp", node, "-e", script, environment=environment)
    return Tool(node, environment, f"{version.strip()}, node {_run('node', node, '--version').strip()}")


def ssimulacra2() -> Tool:
    """The measure of how close a picture is to its original, by Python, in its own venv."""
    return _from_pypi("ssimulacra2", "ssymulacra2", ("ssimulacra2", "numpy"))


def nginx() -> Tool:
    tool = _debian("nginx", "usr/sbin/nginx", ("nginx",))
    output = subprocess.run([tool.path, "-v"], check=True, capture_output=True, text=True, env=tool.environment)
    return Tool(tool.path, tool.environment, output.stderr.strip().rpartition(" ")[2].replace("/", " "))


def wrk() -> Tool:
    """The load generator, with the LuaJIT library that it is linked to."""
    tool = _debian("wrk", "usr/bin/wrk", ("wrk", "libluajit2-5.1-2"))
    # wrk prints its version with the usage message, and exits with 1.
    output = subprocess.run([tool.path, "-v"], check=False, capture_output=True, text=True, env=tool.environment)
    return Tool(tool.path, tool.environment, " ".join(output.stdout.split()[:2]))


def valgrind() -> Tool:
    """Valgrind with callgrind_control; only an installed one finds its own parts."""
    path = shutil.which("valgrind")
    if path is None or shutil.which("callgrind_control") is None:
        raise MissingError("valgrind is not installed")
    return Tool(path, {}, _run("valgrind", path, "--version").strip())


def _from_pypi(name: str, program: str, versions: Sequence[str]) -> Tool:
    """A program of a Python package, in a venv of its own; and the versions of some packages there."""
    home = CACHE / name
    if not (home / "bin" / program).exists():
        _run(name, sys.executable, "-m", "venv", str(home))
        _run(name, str(home / "bin" / "pip"), "install", "--quiet", name)
    listing = _run(name, str(home / "bin" / "pip"), "list", "--format=freeze").splitlines()
    installed = dict(line.split("==") for line in listing)
    return Tool(str(home / "bin" / program), {}, ", ".join(f"{each} {installed[each]}" for each in versions))


def _debian(name: str, program: str, packages: Sequence[str]) -> Tool:
    """An installed program, else from Debian packages that are unpacked into the cache, not installed."""
    installed = shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
    if installed:
        return Tool(installed, {}, name)
    home = CACHE / name
    if not home.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            _run(name, "apt-get", "download", *packages, cwd=scratch)
            for package in Path(scratch).glob("*.deb"):
                _run(name, "dpkg-deb", "-x", str(package), str(Path(scratch, "whole")))
            Path(scratch, "whole").rename(home)
    libraries = ":".join(str(path) for path in home.glob("usr/lib/*-linux-gnu"))
    return Tool(str(home / program), {"LD_LIBRARY_PATH": libraries} if libraries else {}, name)


def _run(name: str, *command: str, cwd: str | None = None, environment: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS, env=environment
        )
    except subprocess.CalledProcessError as error:
        raise MissingError(f"{name}: {error.stderr.strip()[-300:]}") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise MissingError(f"{name}: {error}") from error
    return done.stdout
