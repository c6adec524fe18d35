"""The defaults that the tables of fields describe are those that absent fields have."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from service.callers import NO_LIMITS
from service.schemas import openai_table, table
from service.schemas.fields import Field, Fields
from service.schemas.openai import read_image_request
from service.schemas.requests import read_export, read_order
from service.settings import Settings

Read = Callable[[Mapping[str, str], Settings], object]


def _order(texts: Mapping[str, str], settings: Settings) -> object:
    return read_order(Fields({"script": "x", **texts}), settings, "req_1", None)


def _export(texts: Mapping[str, str], settings: Settings) -> object:
    return read_export(Fields(texts), settings)


def _openai(texts: Mapping[str, str], settings: Settings) -> object:
    return read_image_request(Fields({"prompt": "x", **texts}), settings, "req_1", None, NO_LIMITS)


def _cases() -> Iterator[Any]:
    requests: tuple[tuple[str, Read, tuple[Field[Any], ...]], ...] = (
        ("thumbnails", _order, table.thumbnails(4)),
        ("exports", _export, table.PICTURE),
        ("openai", _openai, openai_table.images(4)),
    )
    for name, read, fields in requests:
        for field in fields:
            # Absent, the focus is None, which crops at the same centre as the point that is described.
            if field.default is not None and field is not table.FOCUS:
                yield pytest.param(read, field, id=f"{name}-{field.name}")


@pytest.mark.parametrize(("read", "field"), list(_cases()))
def test_a_described_default_is_that_of_an_absent_field(read: Read, field: Field[Any]) -> None:
    settings = Settings()
    default = field.default_by(settings)
    text = str(default).lower() if isinstance(default, bool) else str(default)
    assert read({field.name: text}, settings) == read({}, settings)
