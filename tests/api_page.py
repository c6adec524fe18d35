"""The tables of docs/api.md, from the description: `python -m tests.api_page` writes them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service.schemas.warnings import WARNINGS
from tests.description import document

PAGE = Path(__file__).parents[1] / "docs/api.md"
# The fields of which a default is named by its setting.
SETTINGS = {
    "model": "GEMINI_MODEL", "formats": "FORMATS", "png_compression": "PNG_COMPRESSION", "jpeg_quality": "JPEG_QUALITY",
    "webp_quality": "WEBP_QUALITY", "avif_quality": "AVIF_QUALITY", "matte": "MATTE",
}  # fmt: skip


def routes() -> Iterator[str]:
    yield from ("| route | what |", "|---|---|")
    for path, methods in document()["paths"].items():
        heads = ["HEAD"] if "head" in methods else []
        for method, operation in methods.items():
            if method != "head":
                verbs = [method.upper(), *(heads if method == "get" else [])]
                query = [each["name"] for each in operation["parameters"] if each.get("in") == "query"]
                asked = f"?{'&'.join(f'{name}=' for name in query)}" if query else ""
                yield f"| `{'`, `'.join(verbs)} {path}{asked}` | {operation['summary']} |"


def fields() -> Iterator[str]:
    yield from ("| field | route | default | meaning |", "|---|---|---|---|")
    schemas = document()["components"]["schemas"]
    of_thumbnails, of_exports = (schemas[f"{name}Multipart"] for name in ("Thumbnails", "Exports"))
    for name in dict.fromkeys([*of_thumbnails["properties"], *of_exports["properties"]]):
        found = [each for each in (of_thumbnails, of_exports) if name in each["properties"]]
        where = "both" if len(found) == 2 else "thumbnails" if found[0] is of_thumbnails else "exports"
        abouts = dict.fromkeys(each["properties"][name]["description"] for each in found)
        about = (
            abouts.popitem()[0]
            if len(abouts) == 1
            else "; ".join(f"{route}: {about}" for route, about in zip(("thumbnails", "exports"), abouts, strict=True))
        )
        yield f"| `{name}` | {where} | {_default(name, found[-1])} | {about} |"


def _default(name: str, schema: dict[str, Any]) -> str:
    if name in schema.get("required", ()):
        return "required in exports" if name == "image" else "required"
    default = schema["properties"][name].get("default")
    if default is None:
        return ""
    return f"`{SETTINGS.get(name) or (default if isinstance(default, str) else json.dumps(default))}`"


def warnings() -> Iterator[str]:
    yield from ("| code | what happened |", "|---|---|")
    for code, about in WARNINGS.items():
        yield f"| `{code}` | {about} |"


def written(text: str) -> str:
    """The page with its tables as they are now; each is the first of its section."""
    for section, table in (("Routes", routes()), ("Fields", fields()), ("Warnings", warnings())):
        before, head, rest = text.partition(f"\n## {section}\n")
        prose, _, _ = rest.partition("\n|")
        end = re.compile(r"\n(?!\|)").search(rest, len(prose) + 1)
        assert end, section
        text = before + head + prose + "\n" + "\n".join(table) + rest[end.start() :]
    return text


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
