"""An operation as a command line of curl."""

import json
import shlex
from typing import Any

from service.schemas.media_types import JSON, MULTIPART

_PICTURE = "@picture.png"


def own_parameters(operation: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that are not common to all operations."""
    return [each for each in operation["parameters"] if "$ref" not in each]


def command(method: str, path: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    """The command with the description's examples; `$KEY` stands for the API key where one is needed."""
    words = ["curl"]
    if method not in ("get", "post") or (method == "post" and "requestBody" not in operation):
        words += ["-X", method.upper()]
    if operation["security"] == [{"key": []}]:
        words += ["-H", '"Authorization: Bearer $KEY"']
    if "requestBody" in operation:
        words += _body(operation["requestBody"]["content"], document)
    elif not _is_text(operation):
        words.append("-O")
    return " ".join([*words, shlex.quote(_url(path, operation, document))])


def _body(content: dict[str, Any], document: dict[str, Any]) -> list[str]:
    if MULTIPART not in content:
        return ["--json", shlex.quote(json.dumps(content[JSON]["example"], ensure_ascii=False))]
    described = content[MULTIPART]
    schema = document["components"]["schemas"][described["schema"]["$ref"].rpartition("/")[2]]
    parts = [f"{name}={value}" for name, value in described["example"].items()]
    parts += [f"{name}={_PICTURE}" for name in schema.get("required", ()) if name in described.get("encoding", {})]
    return [word for part in parts for word in ("-F", shlex.quote(part))]


def _is_text(operation: dict[str, Any]) -> bool:
    """Whether the answer can be shown in a terminal."""
    types = next(iter(operation["responses"].values())).get("content", {})
    return all(kind.startswith("text/") or kind == JSON for kind in types)


def _url(path: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    """The address, with examples in place of the path's parameters and of the query's required ones."""
    base = document["servers"][0]["url"]
    for parameter in own_parameters(operation):
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", str(parameter["example"]))
    query = "&".join(
        f"{each['name']}={each['example']}"
        for each in own_parameters(operation)
        if each["in"] == "query" and each.get("required")
    )
    return ("http://127.0.0.1:8000" if base == "/" else base) + path + (f"?{query}" if query else "")
