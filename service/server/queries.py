"""Strict parsing of query parameters: unknown and repeated ones are refused."""

from collections.abc import Collection

from aiohttp import web

from service.errors import DuplicateField, UnknownField


def read_query(request: web.Request, allowed: Collection[str] = ()) -> dict[str, str]:
    """The parameters by name; empty ones count as absent. Raises UnknownField, DuplicateField."""
    found: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in allowed:
            shown = name[:60]
            raise UnknownField(f"unknown parameter {shown!r}; allowed: {', '.join(allowed) or 'none'}", param=shown)
        if name in found:
            raise DuplicateField(f"{name} came twice", param=name)
        found[name] = value
    return {name: value for name, value in found.items() if value}
