"""What the description of an operation consists of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from service.errors import ServiceError
from service.schemas.fields import Field
from service.schemas.media_types import MULTIPART
from service.settings import Settings

Schema = Mapping[str, Any]
Errors = tuple[type[ServiceError], ...]

EVENT_STREAM = "text/event-stream"


class Endpoint(Protocol):
    """A row of the table of routes."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def operation_id(self) -> str: ...
    @property
    def access(self) -> Literal["guarded", "page", "open"]: ...
    @property
    def admission(self) -> str | None: ...
    @property
    def head(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the path, the query or the headers."""

    name: str
    place: Literal["path", "query", "header"]
    about: str
    schema: Schema
    example: object = None


@dataclass(frozen=True, slots=True)
class Header:
    """A header of an answer."""

    name: str
    about: str
    schema: Schema


@dataclass(frozen=True, slots=True)
class File:
    """A file in a multipart body."""

    name: str
    about: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a request: its fields by the settings, its files, and the media types that carry it.

    name  the first part of the names of its schemas
    """

    name: str
    fields: Callable[[Settings], tuple[Field[Any], ...]]
    example: Mapping[str, object]
    files: tuple[File, ...] = ()
    types: tuple[str, ...] = (MULTIPART,)


@dataclass(frozen=True, slots=True)
class Success:
    """An answer that is no error: a model as JSON, and content of other media types; an example of each by its type.

    events  the models of the data of a stream's events, by their names
    """

    status: int
    about: str
    model: type[BaseModel] | None = None
    types: tuple[str, ...] = ()
    headers: tuple[Header, ...] = ()
    events: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    examples: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation; `errors` are those beyond what its access and its admission bring.

    variation_errors  those of a request's variations, which are answered when none of them succeeded
    """

    tag: str
    summary: str
    answers: tuple[Success, ...]
    about: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    errors: Errors = ()
    variation_errors: Errors = ()
