"""The directory of the fork server's socket when the system's temporary directory is unusable: real processes."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import bare_environment, picture_bytes

ROOT = Path(__file__).parents[2]
SCRIPT = """
import asyncio, sys
from service.exports import ImageExportService

async def main():
    service = ImageExportService()
    again = ImageExportService()
    for each in (service, again):
        await each.process_and_export_image(open(sys.argv[1], "rb").read())

asyncio.run(main())
"""
# Runs a command with read-only temporary directories; the directory of the test is mounted at /mnt.
NO_TEMP = """
mount --bind "$0" /mnt || exit
for d in /tmp /var/tmp /usr/tmp; do
    [ ! -d $d ] || { mount --bind $d $d && mount -o remount,ro,bind $d; } || exit
done
exec "$@"
"""


@pytest.fixture
def tmp_path(short_path: Path) -> Path:
    return short_path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "holiday.png"
    path.write_bytes(picture_bytes())
    return path


@pytest.fixture
def long_path(tmp_path: Path) -> Callable[[str], str]:
    """Makes a directory whose path is too long for a socket, whose own path may have 107 bytes."""

    def make(name: str) -> str:
        path = tmp_path / name.ljust(110, "x")
        path.mkdir()
        return str(path)

    return make


async def run(*arguments: object, wrapped: tuple[str, ...] = (), **environment: str) -> tuple[int, str, list[str]]:
    process = await asyncio.create_subprocess_exec(
        *wrapped, sys.executable, *map(str, arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd="/proc", env=bare_environment(PYTHONPATH=str(ROOT), EXPORT_WORKERS="1", **environment),
    )  # fmt: skip
    out, errors = await process.communicate()
    # Lines of a progress bar end in carriage returns.
    return process.returncode or 0, out.decode(), [line for line in errors.decode().splitlines() if "TMPDIR" in line]


def exporting(picture: Path, out: Path) -> tuple[object, ...]:
    return "-m", "service", "export", picture, "--out", out, "--formats", "jpeg"


async def test_a_path_too_long_is_reported_and_the_storage_holds_the_socket(
    tmp_path: Path, picture: Path, long_path: Callable[[str], str]
) -> None:
    storage, temp = tmp_path / "storage", long_path("temp")
    status, out, named = await run(*exporting(picture, tmp_path), TMPDIR=temp, STORAGE_DIR=str(storage))
    assert (status, len(out.splitlines())) == (0, 1), named
    [line] = named
    assert temp in line
    assert str(storage / "temp") in line
    assert "too long" in line
    assert [entry.name for entry in (storage / "temp").iterdir()] == []
    assert list(Path(temp).iterdir()) == []


async def test_without_a_temporary_directory_the_storage_holds_the_socket(tmp_path: Path, picture: Path) -> None:
    wrapped = ("unshare", "--mount", "sh", "-c", NO_TEMP, str(tmp_path))
    if os.geteuid():
        pytest.skip("only root may take the temporary directories away")
    status, out, named = await run(*exporting(Path("/mnt/holiday.png"), Path("/mnt/out")), wrapped=wrapped,
                                   STORAGE_DIR="/mnt/storage")  # fmt: skip
    assert (status, len(out.splitlines())) == (0, 1), named
    [line] = named
    assert "No usable temporary directory" in line
    assert "/mnt/storage/temp" in line
    assert list((tmp_path / "storage/temp").iterdir()) == []


@pytest.mark.parametrize("command", ["export", "check", "serve"])
async def test_without_any_usable_directory_the_program_exits_with_one_line(
    tmp_path: Path, picture: Path, long_path: Callable[[str], str], command: str
) -> None:
    temp, storage = long_path("temp"), long_path("storage")
    arguments = exporting(picture, tmp_path) if command == "export" else ("-m", "service", command)
    status, out, named = await run(*arguments, TMPDIR=temp, STORAGE_DIR=storage, PORT="0")
    assert status == 2
    [line] = named or [line for line in out.splitlines() if "TMPDIR" in line]
    assert temp in line
    assert f"TEMP_DIR='{storage}/temp'" in line
    assert "a worker did not start" not in out


async def test_a_python_program_gets_one_warning(
    tmp_path: Path, picture: Path, long_path: Callable[[str], str]
) -> None:
    status, _, named = await run("-c", SCRIPT, picture, TMPDIR=long_path("temp"), STORAGE_DIR=str(tmp_path / "storage"))
    assert status == 0
    assert len(named) == 1


async def test_a_usable_temporary_directory_is_not_mentioned(tmp_path: Path, picture: Path) -> None:
    storage = tmp_path / "storage"
    status, _, named = await run(*exporting(picture, tmp_path), TMPDIR=str(tmp_path), STORAGE_DIR=str(storage))
    assert (status, named) == (0, [])
    assert not [entry.name for entry in tmp_path.iterdir() if entry.name.startswith("pymp-")]
