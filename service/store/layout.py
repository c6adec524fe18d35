"""The layout of the storage: its four areas, the names of files, and keys such as `output/export_….png`."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

from service.imaging.formats import FORMATS, TABLE, Format

Area = Literal["uploads", "generated", "output", "temp"]
AREAS: tuple[Area, ...] = get_args(Area)

EXPORT_NAME = re.compile(rf"export_[0-9a-f]{{32}}(?:{'|'.join(re.escape(TABLE[each].suffix) for each in FORMATS)})")
_KEY = re.compile(rf"({'|'.join(AREAS)})/([A-Za-z0-9_][A-Za-z0-9_.-]{{0,199}})")


class Modes(NamedTuple):
    """The permission bits of what the service creates in the areas."""

    file: int
    directory: int


PRIVATE, SHARED = Modes(0o600, 0o700), Modes(0o644, 0o755)


class Layout:
    """The four areas as absolute directories; turns keys, and nothing but keys, into paths."""

    def __init__(self, roots: Mapping[Area, Path]) -> None:
        self.roots: dict[Area, Path] = {area: Path(roots[area]).absolute() for area in AREAS}

    def split(self, key: str) -> tuple[Area, str]:
        """The area and file name of a key; raises ValueError for anything that is not a key."""
        match = _KEY.fullmatch(key)
        if not match:
            raise ValueError(f"not a storage key: {key!r}")
        return cast("Area", match[1]), match[2]

    def path(self, key: str) -> Path:
        area, name = self.split(key)
        return self.roots[area] / name


def request_id() -> str:
    return f"req_{os.urandom(16).hex()}"


def export_stem() -> str:
    """Random, so that a public link reveals nothing about its request."""
    return f"export_{os.urandom(16).hex()}"


def export_key(stem: str, picture_format: Format) -> str:
    return f"output/{stem}{TABLE[picture_format].suffix}"


def temp_key() -> str:
    return f"temp/{os.urandom(16).hex()}.part"


def upload_key(request: str, field: str, picture_format: Format) -> str:
    return f"uploads/{request}_{field}{TABLE[picture_format].suffix}"


def raw_key(request: str, number: int, suffix: str) -> str:
    """Of the picture of variation `number` as Gemini sent it."""
    return f"generated/{request}_{number}{suffix}"


def part_key(request: str, number: int) -> str:
    """Of the temp file to which the raw of a variation is written before it is renamed."""
    return f"temp/{request}_{number}.part"


def spill_key(request: str, number: int) -> str:
    """Of the temp file for a variation's reply that does not fit into memory."""
    return f"temp/{request}_{number}.body"
