"""Every setting with its default and its allowed values; its environment variable is its name in capitals."""

import os
import socket
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.api_keys import MAX_VARIATIONS, callers_of, parse_list
from service.cpus import usable_cpus
from service.errors import SettingsError
from service.gemini.models import DEFAULT_MODEL
from service.imaging.formats import DEFAULT_FORMATS, FORMATS, Format, formats_of, listed
from service.secret_files import read_secret
from service.store.layout import Area
from service.values import (
    Colour,
    Days,
    ModelName,
    Origin,
    Seconds,
    WebAddress,
    is_loopback,
    is_utf8,
    parse_colour,
    split_list,
)

MIB = 1024 * 1024
MIN_SECRET = 32
# Determined once, at import: it reads files, and Settings may be created on the event loop.
_CPUS = min(usable_cpus(), 256)
# Secrets that may come from a file, which NAME_FILE names.
_FILED = ("gemini_api_key", "signing_secret")


class Settings(BaseSettings):
    """The service's settings, read from the environment once at start; empty variables count as unset."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, populate_by_name=True, extra="ignore")

    storage_dir: Path = Path("storage")
    output_dir: Path | None = None
    temp_dir: Path | None = None
    uploads_dir: Path | None = None
    generated_dir: Path | None = None
    storage_mode: Literal["private", "shared"] | None = None

    png_compression: int = Field(9, ge=0, le=9)
    png_thorough: bool = False
    png_palette: bool = False
    jpeg_quality: int = Field(85, ge=0, le=100)
    webp_quality: int = Field(80, ge=0, le=100)
    webp_method: int = Field(2, ge=0, le=6)
    avif_quality: int = Field(58, ge=0, le=100)
    avif_speed: int = Field(9, ge=6, le=9)
    matte: Colour = "#ffffff"
    formats: Annotated[tuple[Format, ...], NoDecode, Field(min_length=1)] = DEFAULT_FORMATS

    sign_urls: bool = False
    signing_secret: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    signing_secret_file: Path | None = None
    url_signature_expiry: int = Field(3600, ge=1, le=604_800)
    public_url: WebAddress | None = None

    gemini_api_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("gemini_api_key", "GEMINI_API_KEY", "GOOGLE_API_KEY")
    )
    gemini_api_key_file: Path | None = None
    gemini_model: ModelName = DEFAULT_MODEL
    gemini_base_url: WebAddress | None = Field(
        None, validation_alias=AliasChoices("gemini_base_url", "GEMINI_BASE_URL", "GOOGLE_GEMINI_BASE_URL")
    )
    gemini_api_version: str | None = Field(None, pattern=r"^[a-z0-9]{1,16}$")
    gemini_timeout_seconds: Seconds = 180
    gemini_retry_seconds: float = Field(30, ge=0, le=3600, allow_inf_nan=False)
    gemini_concurrency: int = Field(64, ge=1, le=10_000)
    gemini_max_reply_bytes: int = Field(96 * MIB, ge=1, le=1024 * MIB)
    gemini_replies_memory_mb: int = Field(256, ge=1, le=65_536)
    gemini_emulator: bool | Literal["auto"] | None = None

    database_url: SecretStr | None = None
    ledger_dir: Path | None = None
    idempotency_key_hours: float = Field(24, gt=0, le=8760, allow_inf_nan=False)
    budget_usd_per_day: Decimal | None = Field(None, gt=0, le=1_000_000, decimal_places=6)
    ledger_retention_days: Days = 400
    sse_heartbeat_seconds: Seconds = 15

    max_requests: int = Field(1000, ge=1, le=100_000)
    max_downloads: int = Field(1000, ge=1, le=100_000)
    download_cache_mb: int = Field(32, ge=0, le=65_536)
    accel_redirect_prefix: str | None = Field(None, pattern=r"^/([A-Za-z0-9_.~-]+/)+$")
    max_variations: int = Field(4, ge=1, le=MAX_VARIATIONS)
    max_upload_bytes: int = Field(20 * MIB, ge=1, le=1024 * MIB)
    max_image_pixels: int = Field(40_000_000, ge=1, le=200_000_000)
    max_animation_frames: int = Field(1000, ge=1, le=65_536)
    max_animation_pixels: int = Field(50_000_000, ge=1, le=2_000_000_000)
    max_pending_exports: int = Field(64, ge=1, le=100_000)
    export_workers: int = Field(_CPUS, ge=1, le=256)
    export_timeout_seconds: Seconds = 60
    worker_memory_mb: int = Field(1536, ge=256, le=65_536)

    temp_retention_days: Days = 1
    output_retention_days: Days = 7
    uploads_retention_days: Days = 1
    generated_retention_days: Days = 30
    cleanup_interval_minutes: float = Field(60, gt=0, le=525_600, allow_inf_nan=False)

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65_535)
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    api_keys_file: Path | None = None
    allow_anonymous: bool = False
    cors_origins: Annotated[tuple[Origin, ...], NoDecode] = ()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    upload_stall_seconds: Seconds = 30
    upload_min_bytes_per_second: int = Field(10_240, ge=0, le=1024 * MIB)
    download_stall_seconds: Seconds = 20
    download_min_bytes_per_second: int = Field(10_240, ge=0, le=1024 * MIB)
    shutdown_grace_seconds: float = Field(250, ge=0, le=86_400, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _from_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        return values | {name: _filed(name, values) for name in _FILED if values.get(f"{name}_file")}

    @field_validator("signing_secret", "api_keys", "cors_origins", mode="before")
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        return split_list(value)

    @field_validator("signing_secret", "api_keys", "gemini_api_key", mode="before")
    @classmethod
    def _utf8(cls, value: object) -> object:
        # Of several "before" validators pydantic runs the last one first: this one sees the text before it is split.
        if isinstance(value, str) and not is_utf8(value):
            raise ValueError("must be UTF-8")
        return value

    @field_validator("formats", mode="before")
    @classmethod
    def _formats(cls, value: object) -> object:
        """In any case and order, with the aliases that a request may use."""
        try:
            return formats_of(value.split(",")) if isinstance(value, str) else value
        except ValueError:
            raise ValueError(f"must be a comma-separated list of {listed(FORMATS, 'and')}") from None

    @field_validator("log_level", "log_format", "storage_mode", "gemini_emulator", mode="before")
    @classmethod
    def _lower_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("signing_secret")
    @classmethod
    def _long_secrets(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(secret.get_secret_value()) < MIN_SECRET for secret in secrets):
            raise ValueError(f"each key must be at least {MIN_SECRET} characters")
        return secrets

    @field_validator("api_keys")
    @classmethod
    def _distinct_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        callers_of(parse_list([key.get_secret_value() for key in keys]))
        return keys

    @model_validator(mode="after")
    def _checked(self) -> "Settings":
        self.check()
        return self

    def check(self, *, serves: bool = False, draws: bool = False) -> None:
        """Raise SettingsError for settings that are not allowed together.

        `serves`: this process listens on HOST; `draws`: it makes variations.
        """
        if self.sign_urls and not self.signing_secret:
            raise SettingsError(
                f"SIGNING_SECRET is not set: SIGN_URLS=true needs a key of at least {MIN_SECRET} characters"
            )
        if serves and not (self.is_loopback or self.needs_key or self.allow_anonymous):
            # Anyone on the network could spend money.
            raise SettingsError(
                f"HOST={self.host!r} is reachable from outside: set API_KEYS or API_KEYS_FILE,"
                " or ALLOW_ANONYMOUS=true to allow everyone"
            )
        if draws and not self.emulates and self.gemini_api_key is None:
            raise SettingsError(
                "GEMINI_API_KEY is not set: give a key, or GEMINI_EMULATOR=true for the local emulator"
                " (its default only on a loopback HOST without GEMINI_BASE_URL)"
            )

    @property
    def needs_key(self) -> bool:
        """Whether requests need an API key."""
        return bool(self.api_keys or self.api_keys_file)

    @property
    def ledger_directory(self) -> Path:
        return self.ledger_dir or self.storage_dir / "ledger"

    @property
    def budget_nano(self) -> int | None:
        """BUDGET_USD_PER_DAY in nano-dollars."""
        return None if self.budget_usd_per_day is None else int(self.budget_usd_per_day * 1_000_000_000)

    def area(self, area: Area) -> Path:
        """The directory of an area: its own setting, or the one below STORAGE_DIR."""
        own: Path | None = getattr(self, f"{area}_dir")
        return own or self.storage_dir / area

    def retention_days(self, area: Area) -> float:
        days: float = getattr(self, f"{area}_retention_days")
        return days

    @property
    def matte_rgb(self) -> tuple[int, int, int]:
        return parse_colour(self.matte)

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)

    @property
    def emulates(self) -> bool:
        """Whether the local emulator is used instead of Gemini."""
        if isinstance(self.gemini_emulator, bool):
            return self.gemini_emulator
        local = self.is_loopback or self.gemini_emulator == "auto"
        return self.gemini_api_key is None and self.gemini_base_url is None and local

    @property
    def secret_key(self) -> str:
        """The Gemini API key, which no log or answer may contain; empty if there is none."""
        return self.gemini_api_key.get_secret_value() if self.gemini_api_key else ""

    def require_host(self) -> None:
        """Raise SettingsError unless HOST resolves. Not part of `check`, because it asks the resolver and may block."""
        try:
            socket.getaddrinfo(self.host, None)
        except (OSError, UnicodeError):
            raise SettingsError(
                f"HOST={self.host!r} is not allowed: must be an address of this machine, or a name that leads to one"
            ) from None


def _filed(name: str, values: Mapping[str, Any]) -> str:
    """A secret from its file; raises SettingsError, which shows nothing of either."""
    variable = _variable(name, Settings.model_fields[name])
    if values.get(name):
        raise SettingsError(f"{variable} and {name.upper()}_FILE are both set: set one of them")
    try:
        return read_secret(Path(values[f"{name}_file"]))
    except ValueError as error:
        raise SettingsError(f"{name.upper()}_FILE is not allowed: {error}") from None


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment; raises SettingsError, which names the variable and the allowed values."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from None


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    field = str(first["loc"][0])
    reason = first["msg"].removeprefix("Value error, ")
    info = Settings.model_fields.get(field.lower())
    secret = info is None or "SecretStr" in str(info.annotation) or "KEY" in field.upper()
    value = "" if secret else f"={_abbreviated(first['input'])}"
    return f"{_variable(field, info)}{value} is not allowed: {reason}"


def _variable(field: str, info: FieldInfo | None) -> str:
    """The environment variable of a field; of several, the first that is set."""
    aliases = info.validation_alias if info else None
    names = [*map(str, aliases.choices)] if isinstance(aliases, AliasChoices) else [field.upper()]
    if field.lower() in _FILED:
        names.append(f"{field.upper()}_FILE")
    return next((name for name in names if os.environ.get(name)), field.upper())


def _abbreviated(value: object) -> str:
    return repr(value if len(str(value)) <= 100 else f"{str(value)[:100]}…")
