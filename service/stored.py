"""Orders, variations and errors as versioned JSON, as the ledger stores them.

Reading is lenient: unknown members are ignored, and those that an older row lacks have their defaults.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from service.error_codes import stored_error
from service.errors import ServiceError
from service.imaging.formats import NAMES, TABLE, Encoding
from service.imaging.plan import ExportPlan
from service.orders import Order, Variation

VERSION = 1
_PLAIN = ("script", "aspect_ratio", "count", "model", "image_size", "reference")

_PLAN = TypeAdapter(ExportPlan)
_VARIATION = TypeAdapter(Variation)


class Unreadable(ValueError):
    """Stored JSON that is damaged, or that no version of this program wrote."""


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise Unreadable(f"the stored {what} cannot be read: {type(error).__name__}: {reason}") from error


@dataclass(frozen=True, slots=True)
class StoredBase:
    """The base of an order: the key of its upload (None: the command line's), and its digest, size and format."""

    key: str | None
    sha256: str
    size: int
    format: str | None


def order_to_json(order: Order, base: StoredBase | None) -> str:
    return json.dumps(
        {
            "version": VERSION,
            **{name: getattr(order, name) for name in _PLAIN},
            "plan": asdict(order.plan) if order.plan else None,
            "encodings": [{"format": each.format, **asdict(each)} for each in order.encodings or ()] or None,
            "base": asdict(base) if base else None,
        }
    )


@_reading("order")
def order_from_json(text: str, request_id: str) -> tuple[Order, StoredBase | None]:
    """The order without its base, and the stored base; raises Unreadable."""
    stored = json.loads(text)
    base, plan, encodings = stored.get("base"), stored.get("plan"), stored.get("encodings")
    order = Order(
        plan=_PLAN.validate_python(plan) if plan else None,
        encodings=tuple(map(_encoding, encodings)) if encodings else None,
        request_id=request_id,
        **{name: stored[name] for name in _PLAIN if name in stored},
    )
    return order, StoredBase(**_known(StoredBase, base)) if base else None


@_reading("script")
def script_from_json(text: str) -> str:
    """The script of an order; raises Unreadable."""
    return str(json.loads(text).get("script", ""))


def _encoding(stored: Mapping[str, Any]) -> Encoding:
    encoding = TABLE[NAMES[stored["format"]]].encoding
    if encoding is None:
        raise ValueError(f"{stored['format']} is not a format of exports")
    return encoding(**_known(encoding, stored))


def _known(kind: type, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The members that are fields of the dataclass."""
    return {field.name: stored[field.name] for field in fields(kind) if field.name in stored}


def variation_to_json(variation: Variation) -> str:
    return json.dumps({"version": VERSION, **_VARIATION.dump_python(variation, mode="json")})


@_reading("answer")
def variation_from_json(text: str) -> Variation:
    """Raises Unreadable."""
    variation = _VARIATION.validate_json(text)
    for export in variation.exported.exports.values():
        datetime.fromisoformat(export.exported_at)
    return variation


def error_to_json(error: ServiceError) -> str:
    return json.dumps(
        {
            "version": VERSION,
            "code": error.code,
            "status": error.status,
            "detail": error.detail,
            "retryable": error.worth_retrying,
            "billed": error.billed,
            "storage_path": error.storage_path,
            "headers": error.headers,
        }
    )


@_reading("usage")
def usage_from_json(text: str) -> dict[str, Any]:
    """Gemini's usageMetadata; raises Unreadable."""
    return dict(json.loads(text))


@_reading("error")
def error_from_json(text: str) -> ServiceError:
    """Raises Unreadable."""
    stored = json.loads(text)
    return stored_error(
        stored["code"],
        stored["detail"],
        retryable=stored.get("retryable", False),
        status=stored.get("status"),
        headers=stored.get("headers"),
        billed=stored.get("billed"),
        storage_path=stored.get("storage_path"),
    )
