"""Kinds of values of settings and fields: their syntax, and types for pydantic that check it."""

import ipaddress
import re
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field

# The SDK refuses two dots in a row, which could lead out of a path.
MODEL_NAME = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{0,63}")
MODEL_NAME_RULE = (
    "lower-case letters, digits, dots and dashes, at most 64, a letter or digit first, no two dots together"
)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def split_list(value: object) -> object:
    """A comma-separated text as a tuple; other values as they are. Raises ValueError for commas alone."""
    if not isinstance(value, str):
        return value
    parts = tuple(part.strip() for part in value.split(",") if part.strip())
    if value and not parts:
        # Probably keys are missing by mistake: without any, the service would be open to everyone.
        raise ValueError("must be a comma-separated list, or empty")
    return parts


def _origin(value: str) -> str:
    parts = _http(value)
    if parts is None or parts.path or "@" in parts.netloc:
        raise ValueError("must look like https://host or https://host:port")
    return parts.geturl().lower()


def _web_address(value: str) -> str:
    parts = _http(value)
    if parts is None:
        raise ValueError("must be an http:// or https:// address")
    return parts.geturl().rstrip("/")


def _http(value: str) -> SplitResult | None:
    """The parts of an HTTP URL without the scheme's default port; None if the text is not such a URL."""
    parts = urlsplit(value)
    # urlsplit accepts spaces, removes line breaks, and checks the port only when it is read.
    invalid = " " in value or not value.isprintable() or parts.port == 0
    if invalid or parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.query or parts.fragment:
        return None
    return parts._replace(netloc=parts.netloc.removesuffix(_DEFAULT_PORTS[parts.scheme]))


def _colour(value: str) -> str:
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        raise ValueError("must look like #rrggbb")
    return value.lower()


def _model_name(value: str) -> str:
    if not MODEL_NAME.fullmatch(value):
        raise ValueError(f"must be {MODEL_NAME_RULE}")
    return value


WebAddress = Annotated[str, AfterValidator(_web_address)]
Origin = Annotated[str, AfterValidator(_origin)]
Colour = Annotated[str, AfterValidator(_colour)]
ModelName = Annotated[str, AfterValidator(_model_name)]
Days = Annotated[float, Field(ge=0, le=36_500, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


def parse_colour(text: str) -> tuple[int, int, int]:
    """`#rrggbb` as red, green and blue, each 0-255; raises ValueError."""
    red, green, blue = bytes.fromhex(_colour(text)[1:])
    return red, green, blue


def is_utf8(text: str) -> bool:
    """Whether a text from the environment or the command line was UTF-8; Python decodes other bytes to surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether a host name or address is one of the loopback interface."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    # Before Python 3.13 an IPv4-mapped IPv6 address, ::ffff:127.0.0.1, does not count as loopback.
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
