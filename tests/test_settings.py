import re
from pathlib import Path

import pytest

from service.errors import SettingsError
from service.settings import Settings, load_settings
from service.values import is_loopback

TABLES = Path(__file__).parents[1] / "docs/settings.md"
SECRET = "s" * 32


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*Settings.model_fields, "google_api_key", "google_gemini_base_url"):
        monkeypatch.delenv(name.upper(), raising=False)


def test_defaults_are_valid() -> None:
    settings = load_settings()
    assert (settings.png_compression, settings.jpeg_quality, settings.webp_quality) == (9, 85, 80)
    assert settings.area("output") == Path("storage/output")
    assert settings.emulates


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PNG_COMPRESSION", "10", "less than or equal to 9"),
        ("JPEG_QUALITY", "best", "valid integer"),
        ("URL_SIGNATURE_EXPIRY", "604801", "less than or equal to 604800"),
        ("URL_SIGNATURE_EXPIRY", "0", "greater than or equal to 1"),
        ("TEMP_RETENTION_DAYS", "nan", "finite"),
        ("MATTE", "white", "#rrggbb"),
        ("PUBLIC_URL", "ftp://example.com", "http"),
        ("PUBLIC_URL", "https://exam\nple.com", "http"),
        ("PUBLIC_URL", "https://exam ple.com", "http"),
        ("PUBLIC_URL", "https://example.com:99999", "65535"),
        ("GOOGLE_GEMINI_BASE_URL", "ftp://example.com", "http"),
        ("CORS_ORIGINS", "https://a.example,b.example", "https://host"),
        ("CORS_ORIGINS", "https://a.exa\nmple", "https://host"),
        ("CORS_ORIGINS", "https://user@a.example", "https://host"),
        ("CORS_ORIGINS", ",", "comma-separated"),
        ("LOG_FORMAT", "xml", "'text' or 'json'"),
        ("GEMINI_MODEL", "Gemini!", "lower-case"),
        ("GEMINI_MODEL", "gemini..4", "no two dots"),
        ("GEMINI_MAX_REPLY_BYTES", "0", "greater than or equal to 1"),
        ("GEMINI_MAX_REPLY_BYTES", "1073741825", "less than or equal to 1073741824"),
        ("UPLOAD_MIN_BYTES_PER_SECOND", "-1", "greater than or equal to 0"),
        ("DOWNLOAD_MIN_BYTES_PER_SECOND", "fast", "valid integer"),
        ("PORT", "70000", "65535"),
        ("FORMATS", "png,bmp", "png, jpeg, webp"),
        ("FORMATS", "png,", "comma-separated list"),
        ("FORMATS", ",", "comma-separated list"),
        ("FORMATS", "png;jpeg", "comma-separated list"),
    ],
)
def test_a_bad_value_stops_the_start_with_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    line = str(caught.value)
    assert line.startswith(f"{name}=")
    assert allowed in line
    assert "\n" not in line


@pytest.mark.parametrize("name", ["SIGNING_SECRET", "API_KEYS"])
def test_a_short_secret_is_refused_and_never_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, f"{SECRET},hunter2")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert name in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["SIGNING_SECRET", "API_KEYS"])
def test_commas_alone_are_no_list_of_keys(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, " , ")
    with pytest.raises(SettingsError, match=f"^{name} is not allowed: "):
        load_settings()


def test_addresses_are_normalised_as_browsers_do() -> None:
    settings = load_settings(
        public_url="HTTPS://Pictures.example:443/Thumbs/",
        cors_origins="https://App.example:443,http://[::1]:80,https://b.example:80",
    )
    assert settings.public_url == "https://Pictures.example/Thumbs"
    assert settings.cors_origins == ("https://app.example", "http://[::1]", "https://b.example:80")


@pytest.mark.parametrize("name", ["SIGNING_SECRET", "API_KEYS", "GEMINI_API_KEY"])
def test_a_key_that_is_not_utf8_is_refused_and_never_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, f"{SECRET}\udcff")
    with pytest.raises(SettingsError, match=f"^{name} is not allowed: must be UTF-8$"):
        load_settings()


def test_signed_links_need_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGN_URLS", "true")
    with pytest.raises(SettingsError, match="SIGNING_SECRET"):
        load_settings()


def test_secrets_are_split_by_comma_and_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNING_SECRET", f"{SECRET}, {'t' * 32}")
    settings = load_settings()
    assert [secret.get_secret_value()[0] for secret in settings.signing_secret] == ["s", "t"]
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(("text", "formats"), [("webp", ("webp",)), (" AVIF, jpg,png,jpeg", ("png", "jpeg", "avif"))])
def test_formats_are_named_as_in_a_request(
    monkeypatch: pytest.MonkeyPatch, text: str, formats: tuple[str, ...]
) -> None:
    monkeypatch.setenv("FORMATS", text)
    assert load_settings().formats == formats


def test_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNG_COMPRESSION", "")
    monkeypatch.setenv("GEMINI_API_KEY", "")
    monkeypatch.setenv("GOOGLE_API_KEY", "a-key")
    settings = load_settings()
    assert settings.png_compression == 9
    assert settings.gemini_api_key is not None


def test_of_two_variables_the_error_names_the_one_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_BASE_URL", "ftp://a.example")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "ftp://b.example")
    with pytest.raises(SettingsError, match=r"^GEMINI_BASE_URL='ftp://a\.example'"):
        load_settings()


@pytest.mark.parametrize(
    ("environment", "emulates", "starts"),
    [
        ({}, True, True),
        ({"GEMINI_API_KEY": "key"}, False, True),
        ({"HOST": "0.0.0.0"}, False, False),
        ({"HOST": "0.0.0.0", "GEMINI_EMULATOR": "true"}, True, True),
        ({"GEMINI_BASE_URL": "http://127.0.0.1:9"}, False, False),
        ({"GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:9", "GOOGLE_API_KEY": "key"}, False, True),
        ({"GEMINI_EMULATOR": "false"}, False, False),
        ({"HOST": "0.0.0.0", "GEMINI_EMULATOR": "Auto"}, True, True),
        ({"HOST": "0.0.0.0", "GEMINI_EMULATOR": "auto", "GEMINI_API_KEY": "key"}, False, True),
        ({"GEMINI_EMULATOR": "true", "GEMINI_API_KEY": "key"}, True, True),
    ],
)
def test_the_emulator_is_the_default_only_on_loopback_without_key_and_base_url(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], emulates: bool, starts: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.emulates is emulates
    if starts:
        settings.check(draws=True)
    else:
        with pytest.raises(SettingsError, match="GEMINI_API_KEY"):
            settings.check(draws=True)


def test_a_host_that_others_reach_needs_keys_or_allow_anonymous() -> None:
    for closed in ({"host": "127.0.0.1"}, {"host": "::1"}, {"host": "localhost"}):
        load_settings(**closed).check(serves=True)
    load_settings(host="0.0.0.0", allow_anonymous=True).check(serves=True)
    load_settings(host="0.0.0.0", api_keys="k" * 16).check(serves=True)
    with pytest.raises(SettingsError, match="API_KEYS"):
        load_settings(host="0.0.0.0").check(serves=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "a.localhost"])
def test_loopback_hosts(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "example.com", "localhost.example.com", "10.0.0.1"])
def test_hosts_that_others_reach(host: str) -> None:
    assert not is_loopback(host)


def test_the_tables_have_every_setting_once_and_no_other() -> None:
    named = re.findall(r"^\| `([A-Z_]+)` \|", TABLES.read_text(), re.MULTILINE)
    assert sorted(named) == sorted(name.upper() for name in Settings.model_fields)
