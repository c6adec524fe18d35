"""`Fields`: the text fields of a body, each read strictly; every error says what is allowed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar, overload

from service.errors import InvalidField
from service.schemas.kinds import Kind
from service.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Field(Generic[T]):
    """A field of a body.

    about    what it means, as CommonMark
    default  of an absent field, as clients would send it: a constant, or one that a setting gives
    """

    name: str
    kind: Kind[T]
    about: str
    default: object | Callable[[Settings], object] = None
    required: bool = False

    def default_by(self, settings: Settings) -> object:
        return self.default(settings) if callable(self.default) else self.default


@dataclass(frozen=True, slots=True)
class Fields:
    """The text of each field by its name. An empty value counts as absent."""

    texts: Mapping[str, str]

    def text(self, name: str) -> str | None:
        return self.texts.get(name) or None

    @overload
    def read(self, field: Field[T]) -> T | None: ...

    @overload
    def read(self, field: Field[T], default: T) -> T: ...

    def read(self, field: Field[T], default: T | None = None) -> T | None:
        """The value of a field; raises InvalidField."""
        text = self.text(field.name)
        if text is None:
            return default
        try:
            return field.kind.parse(text)
        except ValueError:
            raise not_allowed(field.name, text, field.kind.allowed) from None


def not_allowed(name: str, text: str, allowed: str) -> InvalidField:
    shown = text if len(text) <= 60 else f"{text[:60]}…"
    return InvalidField(f"{name}={shown!r} is not allowed: {allowed}", param=name)
