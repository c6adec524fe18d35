"""Validation of the arguments of ImageExportService: a wrong type or value raises TypeError or ValueError at once."""

import os
from collections.abc import Mapping
from typing import Any

from service.imaging.frame import MAX_SIDE


def picture_data(value: object) -> bytes:
    """The bytes of a picture file; raises TypeError, which says what is expected."""
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(
            "image_data must be the bytes of a picture file (bytes, bytearray or memoryview),"
            f" not {type(value).__name__}: read a file first, and decode base64"
        )
    return bytes(value)


def base_path(value: object) -> str | None:
    """The path of a base picture, if any; raises TypeError."""
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"base_image_path must be a path (str or os.PathLike) or None, not {type(value).__name__}")
    return os.fsdecode(value)


def dimensions(value: object) -> tuple[int | None, int | None]:
    """Width and height in pixels, None for unchanged; raises TypeError and ValueError."""
    if value is None:
        return None, None
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"normalize_dimensions must be (width, height) or None, not {type(value).__name__}")
    whole = all(isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= MAX_SIDE for side in value)
    if len(value) != 2 or not whole:
        raise ValueError(f"normalize_dimensions must be two whole numbers, 1 to {MAX_SIDE} pixels, not {value!r:.60}")
    width, height = value
    return width, height


def echoed_metadata(value: object) -> dict[str, Any]:
    """A copy of the metadata that each export repeats; raises TypeError."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"metadata must be a mapping or None, not {type(value).__name__}")
    return dict(value)
