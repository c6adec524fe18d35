"""API_KEYS_FILE is read again when its content changes, and a bad one leaves the keys as they are."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service import keyring
from service.keyring import Keyring
from service.settings import load_settings
from tests.helpers import until

LISTED, OLD, NEW = "listed-0123456789abcdef", "old-0123456789abcdef", "new-0123456789abcdef"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"old:{OLD}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
async def keys(file: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Keyring]:
    monkeypatch.setattr(keyring, "READ_SECONDS", 0.01)
    opened = Keyring(load_settings(api_keys=LISTED, api_keys_file=file))
    opened.load()
    watch = asyncio.create_task(opened.watch())
    yield opened
    watch.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watch


def names(keys: Keyring) -> list[str | None]:
    found = [keys.caller(key.encode()) for key in (LISTED, OLD, NEW)]
    return [each.name if each else None for each in found]


async def test_listed_keys_and_those_of_the_file_are_valid(keys: Keyring) -> None:
    assert names(keys) == ["-", "old", None]
    assert keys.caller(b"") is None
    assert keys.state == "ok"


async def test_a_changed_file_replaces_its_keys(keys: Keyring, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    file.write_text(f"new:{NEW}\n")
    await until(lambda: names(keys) == ["-", None, "new"])
    await until(lambda: caplog.messages == ["API_KEYS_FILE was read again: there are 2 keys"])


async def test_links_are_followed_as_kubernetes_swaps_them(keys: Keyring, file: Path, tmp_path: Path) -> None:
    for name, key in (("..1", OLD), ("..2", NEW)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys").write_text(f"{key}\n")
    data, link = tmp_path / "..data", tmp_path / "..data_tmp"
    data.symlink_to("..1")
    file.unlink()
    file.symlink_to("..data/keys")
    await until(lambda: names(keys) == ["-", "-", None])
    link.symlink_to("..2")
    link.rename(data)
    await until(lambda: names(keys) == ["-", None, "-"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (f"new:{NEW} rate=fast\n", "line 1: rate"),
        (f"{NEW}\n{LISTED}\n", "key 1 of API_KEYS and line 2 are the same key"),
        (b"\xff" * 20, "not UTF-8"),
        ("# none\n", "no key"),
        ("", "no key"),
        (None, "cannot be read: No such file"),
    ],
)
async def test_a_file_that_cannot_be_used_keeps_the_old_keys_until_it_can(
    keys: Keyring, file: Path, caplog: pytest.LogCaptureFixture, content: str | bytes | None, reason: str
) -> None:
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    await until(lambda: keys.state != "ok")
    assert reason in keys.state
    assert names(keys) == ["-", "old", None]
    await until(lambda: len(caplog.records) == 1)
    assert caplog.records[0].levelno == logging.WARNING
    assert caplog.messages == [keys.state]
    assert not [key for key in (LISTED, OLD, NEW) if key in caplog.text]
    file.write_text(f"new:{NEW}\n")
    await until(lambda: keys.state == "ok")
    assert names(keys) == ["-", None, "new"]


async def test_a_file_that_others_may_read_is_used_and_warned_of(
    keys: Keyring, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.chmod(0o644)
    file.write_text(f"new:{NEW}\n")
    await until(lambda: names(keys) == ["-", None, "new"])
    assert "API_KEYS_FILE can be read by every user" in caplog.text
