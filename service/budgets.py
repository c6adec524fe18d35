"""The rules of byte budgets, which fields of forms and arguments of Python share."""

from collections.abc import Collection, Iterable

from service.imaging.formats import NAMES, Format, listed

MAX_BYTES = 1_000_000_000
RULE = f"a whole number from 1 to {MAX_BYTES}, or one for each of some formats, such as png:200000,webp:50000"


def budget_of_each(named: Iterable[tuple[str, int]], formats: Collection[Format]) -> tuple[tuple[Format, int], ...]:
    """The bytes of each format that is named, in the order of `formats`, which are those that are asked for.

    Raises ValueError for a name twice, or of no such format.
    """
    each: dict[Format, int] = {}
    for name, most in named:
        kind = NAMES.get(name.strip().lower())
        if kind is None or kind not in formats:
            raise ValueError(f"{name.strip()[:20]!r} is none of the requested formats, {listed(formats, 'and')}")
        if kind in each:
            raise ValueError(f"{kind} comes twice")
        each[kind] = most
    return tuple((kind, each[kind]) for kind in formats if kind in each)
