"""Ledgers with which nothing starts: exit 2, and one line without a password, from every command that needs one."""

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import apsw
import pytest
from click.testing import CliRunner

from service.cli import main
from service.errors import SettingsError
from service.ledger import sqlite
from service.ledger.database import NAME
from service.ledger.ledger import LedgerAccess
from service.ledger.schema import LATEST
from service.ledger.steps import Rules
from tests.helpers import KEY, small_disk

COMMANDS = (["serve", "--port", "0"], ["generate", "a script"], ["check"], ["usage"])


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"STORAGE_DIR": tmp_path / "storage", "EXPORT_WORKERS": 1, "GEMINI_API_KEY": KEY}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=COMMANDS, ids=lambda command: command[0])
def refusal(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Runs the command; returns the one line that it says."""

    def run() -> str:
        result = CliRunner().invoke(main, request.param)
        assert result.exit_code == 2, (result.output, result.exception)
        [line] = [line for line in result.output.splitlines() if "DATABASE_URL" in line or "ledger" in line]
        assert isinstance(result.exception, SystemExit)
        return line

    return run


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:hunter2@localhost/x",
        "sqlite:///hunter2.db",
        "hunter2",
        "postgresql://user:hunter2@127.0.0.1:1/x",
        "postgresql://user:h%75nter2@127.0.0.1:1/x",
        "postgresql://user:hunter2@[/x",
        "postgresql://user:hunter2%zz@localhost/x",
        "postgresql://127.0.0.1:1/x?password=hunter2&sslmode=hunter2",
        "postgresql://user:hunter2@127.0.0.1:hunter2/x",
    ],
)
def test_another_database_or_none_that_answers(
    url: str, refusal: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    line = refusal()
    assert "DATABASE_URL" in line
    assert "hunter2" not in line.replace("h%75nter2", "hunter2")


def test_without_the_extra_postgres(refusal: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "service.ledger.postgres", raising=False)
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:hunter2@127.0.0.1/x")
    line = refusal()
    assert "pip install" in line
    assert "hunter2" not in line


def test_a_newer_schema(access: LedgerAccess, monkeypatch: pytest.MonkeyPatch, refusal: Callable[[], str]) -> None:
    database = access.connect()
    database.run("UPDATE schema SET version = version + 1")
    database.close()
    monkeypatch.setenv("LEDGER_DIR", str(access.directory))
    monkeypatch.setenv("DATABASE_URL", access.url)
    assert "newer" in refusal()


def test_a_newer_user_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[[], str]) -> None:
    monkeypatch.setenv("LEDGER_DIR", str(tmp_path / "ledger"))
    _written(tmp_path / "ledger")
    with sqlite3.connect(tmp_path / "ledger" / NAME) as connection:
        [version] = connection.execute("PRAGMA user_version").fetchone()
        assert version == LATEST
        connection.execute(f"PRAGMA user_version = {version + 1}")
    connection.close()
    assert "newer" in refusal()


def _written(directory: Path) -> Path:
    """A ledger that was used and closed: one file, without a write-ahead log."""
    path = directory / NAME
    database = LedgerAccess(directory, Rules(1, None)).connect()
    for number in range(300):
        database.run("INSERT INTO probes (data) VALUES (:data)", {"data": f"{number}" * 200})
    database.close()
    return path


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_within_a_page(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def corrupt(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8192] = os.urandom(8192)
    path.write_bytes(data)


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def of_another_program(path: Path) -> None:
    path.unlink()
    with apsw.Connection(str(path)) as connection:
        connection.execute("CREATE TABLE requests (x)")


@pytest.mark.parametrize("harm", [garbage, cut, cut_within_a_page, corrupt, a_directory, of_another_program])
def test_a_file_that_cannot_be_used(
    harm: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[[], str]
) -> None:
    monkeypatch.setenv("LEDGER_DIR", str(tmp_path / "ledger"))
    harm(_written(tmp_path / "ledger"))
    assert "ledger" in refusal()


def test_check_reads_all_of_a_large_file_that_the_start_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "ledger"
    monkeypatch.setenv("LEDGER_DIR", str(directory))
    monkeypatch.setattr(sqlite, "CHECKED_BYTES", 0)
    path = _written(directory)
    assert f"ledger: ok, {directory}" in CliRunner().invoke(main, ["check"]).output
    corrupt(path)
    LedgerAccess(directory, Rules(1, None)).connect().close()
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 2
    assert f"ledger: fault: LEDGER_DIR='{directory}' cannot be used: ledger.db is corrupt" in result.output


def test_another_process_may_open_and_close_the_file_meanwhile(tmp_path: Path) -> None:
    """The last to close removes the write-ahead log, and the locks of this process say that it is not the last."""
    database = LedgerAccess(tmp_path, Rules(1, None)).connect()
    backup = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).backup(sqlite3.connect(sys.argv[2]))"
    for number, copy in enumerate(("first.db", "second.db")):
        subprocess.run([sys.executable, "-c", backup, tmp_path / NAME, tmp_path / copy], check=True)
        database.run("INSERT INTO probes (data) VALUES (:data)", {"data": str(number)})
    with contextlib.closing(sqlite3.connect(tmp_path / "second.db")) as copied:
        assert copied.execute("SELECT data FROM probes").fetchall() == [("0",)]
    assert (tmp_path / f"{NAME}-wal").exists()
    database.close()


def test_a_directory_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[[], str]
) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        _written(disk / "ledger")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        monkeypatch.setenv("LEDGER_DIR", str(disk / "ledger"))
        assert "LEDGER_DIR" in refusal()


def test_a_network_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[[], str]) -> None:
    device = tmp_path.stat().st_dev
    table = tmp_path / "mountinfo"
    table.write_text(f"1 0 {os.major(device)}:{os.minor(device)} / / rw - nfs4 server:/ rw\n")
    monkeypatch.setattr(sqlite, "MOUNTS", table)
    monkeypatch.setenv("LEDGER_DIR", str(tmp_path / "ledger"))
    line = refusal()
    assert "LEDGER_DIR" in line
    assert "DATABASE_URL" in line


@pytest.mark.parametrize("area", ["output", "temp", "uploads", "generated"])
def test_a_directory_that_is_swept(
    area: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[[], str]
) -> None:
    monkeypatch.setenv("LEDGER_DIR", str(tmp_path / "storage" / area / "ledger"))
    assert "LEDGER_DIR" in refusal()


def test_without_a_right_to_make_tables(access: LedgerAccess) -> None:
    if not access.url:
        pytest.skip("of PostgreSQL")
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(access.url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute("CREATE ROLE reader LOGIN PASSWORD 'hunter2'")
    url = access.url.replace("//ledger@", f"//reader:{quote('hunter2')}@")
    with pytest.raises(SettingsError) as refused:
        LedgerAccess(access.directory, access.rules, url).connect()
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_many_processes_that_start_at_once_make_the_tables_once(access: LedgerAccess) -> None:
    barrier = threading.Barrier(8)

    def start() -> int:
        barrier.wait()
        database = access.connect()
        [[versions]] = database.run("SELECT count(*) FROM schema")
        database.close()
        return int(versions)

    with ThreadPoolExecutor(8) as threads:
        assert [future.result() for future in [threads.submit(start) for _ in range(8)]] == [LATEST] * 8
