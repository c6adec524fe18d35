"""Collects the text fields of a body by their names, under the same rules for every type of body."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from service.errors import DuplicateField, InvalidField, UnknownField
from service.schemas.fields import Fields
from service.schemas.requests import too_long
from service.schemas.table import FORMATS, MAX_SCRIPT, SCRIPT

MAX_FIELDS = 64
# UTF-8 takes at most 4 bytes a character.
MAX_TEXT_BYTES = 4 * MAX_SCRIPT
MAX_SHORT_BYTES = 1_000
_SHOWN = 60


@dataclass(slots=True)
class Collected:
    """The fields of one body.

    texts, files  the allowed names
    long          those of texts that may be as long as a script
    aliases       other names of fields, with the names that they stand for
    """

    texts: Collection[str]
    files: Collection[str] = ()
    long: Collection[str] = (SCRIPT.name,)
    aliases: Mapping[str, str] = field(default_factory=dict)
    _found: dict[str, list[str]] = field(default_factory=dict)

    def begin(self, name: str) -> str:
        """Note that a field came, and return its own name; raises UnknownField, and DuplicateField for a second one.

        `formats` may come several times, and is the list of all its values.
        """
        name = self.aliases.get(name, name)
        if name not in self.texts and name not in self.files:
            raise _unknown(name, [*self.texts, *self.files])
        if name in self._found and name != FORMATS.name:
            raise DuplicateField(f"{name} came twice", param=name)
        self._found.setdefault(name, [])
        return name

    def add(self, name: str, text: str) -> None:
        """Keep the text of a field that `begin` has accepted; raises InvalidField for one that is too long."""
        self.check_length(name, len(text.encode()))
        self._found[name].append(text)

    def check_length(self, name: str, size: int) -> None:
        """Raise InvalidField if a text of so many bytes, which may be its beginning only, is too long for the field."""
        if name in self.long:
            if size > MAX_TEXT_BYTES:
                raise too_long(name)
        elif size > MAX_SHORT_BYTES:
            raise InvalidField(f"{name} is too long: at most {MAX_SHORT_BYTES} bytes are allowed", param=name)

    def refuse_file(self, name: str) -> None:
        """Raise InvalidField for a value of a file's field in a body that carries no files."""
        if name in self.files:
            raise InvalidField(f"{name} is a file: send it, and the other fields, as multipart/form-data", param=name)

    def fields(self) -> Fields:
        """The fields; several values of one as a comma-separated list."""
        return Fields({name: ",".join(filter(None, texts)) for name, texts in self._found.items() if texts})


def _unknown(name: str, known: list[str]) -> UnknownField:
    shown = name[:_SHOWN]
    [nearest] = difflib.get_close_matches(shown.lower(), known, n=1, cutoff=0)
    allowed = ", ".join(known)
    return UnknownField(f"unknown field {shown!r}, the nearest known one is {nearest}; allowed: {allowed}", param=shown)
