"""Secrets in files: GEMINI_API_KEY_FILE, SIGNING_SECRET_FILE and API_KEYS_FILE."""

import os
from pathlib import Path

import pytest

from service.errors import SettingsError
from service.keyring import Keyring
from service.secret_files import MAX_SECRET_FILE, warn_if_exposed
from service.settings import Settings, load_settings

SECRET = "the-content-of-a-secret-0123456789"
VARIABLES = ("GEMINI_API_KEY_FILE", "SIGNING_SECRET_FILE", "API_KEYS_FILE")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*Settings.model_fields, "google_api_key"):
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    path.chmod(0o600)
    return path


def load() -> Settings:
    settings = load_settings()
    Keyring(settings).load()
    return settings


@pytest.mark.parametrize("around", ["{}", "{}\n", "\ufeff{}\r\n", " {} \n\n"])
def test_a_secret_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, file: Path, around: str) -> None:
    file.write_text(around.format(SECRET))
    for name in VARIABLES:
        monkeypatch.setenv(name, str(file))
    settings = load()
    assert settings.gemini_api_key
    assert settings.gemini_api_key.get_secret_value() == settings.secret_key == SECRET
    assert [secret.get_secret_value() for secret in settings.signing_secret] == [SECRET]
    assert settings.needs_key
    assert SECRET not in repr(settings)


def test_a_signing_secret_file_may_list_several(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    file.write_text(f"{SECRET}-1, {SECRET}-2\n")
    monkeypatch.setenv("SIGNING_SECRET_FILE", str(file))
    assert [secret.get_secret_value()[-1] for secret in load_settings().signing_secret] == ["1", "2"]


@pytest.mark.parametrize(
    ("variable", "file_variable"),
    [
        ("GEMINI_API_KEY", "GEMINI_API_KEY_FILE"),
        ("GOOGLE_API_KEY", "GEMINI_API_KEY_FILE"),
        ("SIGNING_SECRET", "SIGNING_SECRET_FILE"),
    ],
)
def test_a_secret_and_its_file_together_prevent_the_start(
    monkeypatch: pytest.MonkeyPatch, file: Path, variable: str, file_variable: str
) -> None:
    monkeypatch.setenv(variable, SECRET)
    monkeypatch.setenv(file_variable, str(file))
    with pytest.raises(SettingsError, match=f"^{variable} and {file_variable} are both set"):
        load_settings()
    monkeypatch.setenv(variable, "")
    load_settings()


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file"),
        (b"", "empty|no key"),
        (b" \n\n", "empty|no key"),
        (b"\xef\xbb\xbf", "empty|no key"),
        (f"{SECRET}\xff".encode("latin-1"), "not UTF-8"),
        (f"{SECRET}\0".encode(), "control character"),
        (b"x" * (MAX_SECRET_FILE + 1), "more than 1048576 bytes"),
    ],
)
def test_a_file_that_cannot_be_used_prevents_the_start_and_is_never_shown(
    monkeypatch: pytest.MonkeyPatch, file: Path, variable: str, content: bytes | None, reason: str
) -> None:
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    monkeypatch.setenv(variable, str(file))
    with pytest.raises(SettingsError, match=f"^{variable} is not allowed: .*({reason})") as caught:
        load()
    assert SECRET not in str(caught.value)
    assert str(file) not in str(caught.value)


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_secret_that_was_set_in_place_of_its_file_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, SECRET)
    with pytest.raises(SettingsError, match="cannot be read") as caught:
        load()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("variable", VARIABLES)
def test_what_is_no_regular_file_prevents_the_start_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", ".", "/dev/zero"):
        monkeypatch.setenv(variable, str(tmp_path / name))
        with pytest.raises(SettingsError, match="not a regular file"):
            load()


def test_the_error_of_a_secret_names_the_file_that_it_came_from(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    file.write_text("short")
    monkeypatch.setenv("SIGNING_SECRET_FILE", str(file))
    with pytest.raises(SettingsError, match=r"^SIGNING_SECRET_FILE is not allowed: each key must be at least 32"):
        load_settings()


@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o640, 0), (0o604, 1), (0o644, 1)])
def test_a_file_that_everyone_may_read_is_warned_of(
    file: Path, caplog: pytest.LogCaptureFixture, mode: int, warnings: int
) -> None:
    file.chmod(mode)
    link = file.with_name("link")
    link.symlink_to(file)
    warn_if_exposed("API_KEYS_FILE", link)
    assert [record.message.startswith("API_KEYS_FILE can be read by every") for record in caplog.records] == (
        [True] * warnings
    )
