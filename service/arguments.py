"""Validation of the arguments of ImageExportService: a wrong type or value raises TypeError or ValueError at once."""

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from service.budgets import MAX_BYTES, budget_of_each
from service.imaging.formats import FORMATS, Format, formats_of, listed
from service.imaging.frame import MAX_SIDE
from service.imaging.plan import WHOLE_SHARE, Animate, Budgets, Focus, Provenance


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
    whole = all(isinstance(side, int) and _is_no_bool(side) and 1 <= side <= MAX_SIDE for side in value)
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


def requested_formats(value: object, default: tuple[Format, ...]) -> tuple[Format, ...]:
    """The formats with these names, None for the default ones; raises TypeError and ValueError."""
    if value is None:
        return default
    if not isinstance(value, Sequence):
        raise TypeError(f"formats must be a sequence of names or None, not {type(value).__name__}")
    try:
        if all(isinstance(name, str) for name in value) and (formats := formats_of(value)):
            return formats
    except ValueError:
        pass
    raise ValueError(f"formats must be a sequence of one or more of {listed(FORMATS, 'and')}, not {value!r:.60}")


def provenance_choice(value: object) -> Provenance:
    """Raises TypeError and ValueError."""
    if not isinstance(value, str):
        raise TypeError(f"provenance must be a str, not {type(value).__name__}")
    match value:
        case "keep" | "generated":
            return value
    raise ValueError(f"provenance must be 'keep' or 'generated', not {value!r:.60}")


def animate_choice(value: object, budgets: Budgets) -> Animate:
    """Whether every frame of an animation is exported; raises TypeError and ValueError."""
    if not isinstance(value, str):
        raise TypeError(f"animate must be a str, not {type(value).__name__}")
    match value:
        case "keep" if budgets.given:
            raise ValueError("animate='keep' is only allowed without max_bytes")
        case "first" | "keep":
            return value
    raise ValueError(f"animate must be 'first' or 'keep', not {value!r:.60}")


def focus_point(value: object) -> Focus:
    """The point that a crop centres on, in ten-thousandths of the size; raises TypeError and ValueError."""
    if value is not None and not isinstance(value, (tuple, list, str)):
        raise TypeError(f"focus must be (x, y), 'auto' or None, not {type(value).__name__}")
    match value:
        case None | "auto":
            return value
        case [x, y] if _is_share(x) and _is_share(y):
            return round(x * WHOLE_SHARE), round(y * WHOLE_SHARE)
    raise ValueError(f"focus must be 'auto' or two numbers from 0 to 1 with at most 4 decimals, not {value!r:.60}")


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float)) and _is_no_bool(value) and 0 <= value <= 1 and round(value, 4) == value


def byte_budgets(value: object, allow_resize: object, formats: Collection[Format]) -> Budgets:
    """The most bytes of a file of any format, or of some of `formats`; raises TypeError and ValueError."""
    if not isinstance(allow_resize, bool):
        raise TypeError(f"allow_resize must be a bool, not {type(allow_resize).__name__}")
    if value is None:
        return Budgets(may_resize=allow_resize)
    if isinstance(value, Mapping):
        named = [(str(name), _bytes(most)) for name, most in value.items()]
        try:
            return Budgets(each=budget_of_each(named, formats), may_resize=allow_resize)
        except ValueError as reason:
            raise ValueError(f"max_bytes: {reason}") from None
    if not isinstance(value, int):
        raise TypeError(f"max_bytes must be an int, a mapping of formats to ints or None, not {type(value).__name__}")
    return Budgets(any=_bytes(value), may_resize=allow_resize)


def _bytes(value: object) -> int:
    if isinstance(value, int) and _is_no_bool(value) and 1 <= value <= MAX_BYTES:
        return value
    raise ValueError(f"max_bytes must be whole numbers from 1 to {MAX_BYTES}, not {value!r:.60}")


def _is_no_bool(value: object) -> bool:
    """bool is a subclass of int, but no number that is meant."""
    return not isinstance(value, bool)
