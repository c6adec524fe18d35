"""The description as an HTML page, for people: without scripts, and readable without its styles."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from service.error_codes import classes
from service.errors import ServiceError
from service.schemas.media_types import JSON, MULTIPART
from service.schemas.openai_answers import CODES
from service.schemas.openapi.curl import command, own_parameters
from service.schemas.openapi.html import Markup, code, element, inline, joined, link, prose, table
from service.schemas.openapi.notes import ABOUT, NOTES, anchor
from service.schemas.openapi.types import in_words
from service.schemas.remedies import REMEDIES
from service.schemas.warnings import WARNINGS

_Operation = tuple[str, str, dict[str, Any]]


def page(document: dict[str, Any]) -> str:
    """The whole page; its links are relative to `/docs`."""
    title = f"{document['info']['title']}: the HTTP API"
    operations = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method != "head"
    ]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("link", rel="icon", href="studio/favicon.svg", type="image/svg+xml"),
        element("link", rel="stylesheet", href="studio/studio.css"),
        element("link", rel="stylesheet", href="studio/docs.css"),
    )
    main = element(
        "main",
        element("h1", title),
        element("p", f"Version {document['info']['version']}. ", link("openapi.json", "openapi.json"), class_="hint"),
        prose(ABOUT),
        *_notes(),
        *_families(operations, document),
        _schemas(document["components"]["schemas"]),
        _warnings(),
        _errors(),
        id="main",
    )
    body = element(
        "body",
        element("a", "Skip to the content", href="#main", class_="skip"),
        _contents(operations, document),
        main,
        class_="docs",
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _contents(operations: list[_Operation], document: dict[str, Any]) -> Markup:
    """The table of contents."""
    families = [
        element(
            "li",
            link(f"#{tag['name']}", tag["name"]),
            element(
                "ul",
                *(
                    element("li", link(f"#{operation['operationId']}", operation["summary"]))
                    for _, _, operation in operations
                    if tag["name"] in operation["tags"]
                ),
            ),
        )
        for tag in document["tags"]
    ]
    notes = [element("li", link(f"#{anchor(title)}", title)) for title in NOTES]
    rest = [element("li", link(f"#{name}", name)) for name in ("schemas", "warnings", "errors")]
    return element("nav", element("ul", *notes, *families, *rest), aria_label="Contents")


def _notes() -> Iterator[Markup]:
    for title, text in NOTES.items():
        yield element("section", element("h3", title, id=anchor(title)), prose(text), class_="note")


def _families(operations: list[_Operation], document: dict[str, Any]) -> Iterator[Markup]:
    for tag in document["tags"]:
        found = [each for each in operations if tag["name"] in each[2]["tags"]]
        yield element(
            "section",
            element("h2", tag["name"], id=tag["name"]),
            prose(tag["description"]),
            *(_operation(*each, document) for each in found),
        )


def _operation(method: str, path: str, operation: dict[str, Any], document: dict[str, Any]) -> Markup:
    verbs = [method.upper()] + ["HEAD"] * ("head" in document["paths"][path])
    parts = [
        element("h3", operation["summary"], id=operation["operationId"]),
        element("p", code(f"{' '.join(verbs)} {path}"), class_="route"),
        prose(operation.get("description", "")) if "description" in operation else "",
        element("pre", code(command(method, path, operation, document)), tabindex="0"),
    ]
    if parameters := own_parameters(operation):
        rows = [
            (code(each["name"]), each["in"], in_words(each["schema"]), inline(each["description"]))
            for each in parameters
        ]
        parts.append(table("Parameters", ("parameter", "in", "type", "meaning"), rows))
    if "requestBody" in operation:
        parts += _body(operation["requestBody"]["content"], document)
    parts.append(table("Answers", ("status", "body", "meaning"), map(_answer, operation["responses"].items())))
    return element("article", *parts, aria_labelledby=operation["operationId"])


def _body(content: dict[str, Any], document: dict[str, Any]) -> Iterator[Markup]:
    described = content.get(MULTIPART) or content[JSON]
    schema = document["components"]["schemas"][described["schema"]["$ref"].rpartition("/")[2]]
    types = joined(map(code, content), ", ")
    files = " Files only in the first." if MULTIPART in content and len(content) > 1 else ""
    yield element("p", "The fields of the body, which is ", types, ".", files)
    yield table("Fields of the body", ("field", "type", "default", "meaning"), _members(schema, with_default=True))


def _members(schema: dict[str, Any], *, with_default: bool = False) -> Iterator[tuple[str, ...]]:
    for name, member in schema["properties"].items():
        needed = name in schema.get("required", ())
        default = code(_as_text(member["default"])) if "default" in member else "required" if needed else ""
        about = inline(member.get("description", ""))
        yield (code(name), in_words(member), *([default] if with_default else []), about)


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _answer(described: tuple[str, dict[str, Any]]) -> tuple[str, ...]:
    status, answer = described
    if int(status) >= 400:
        codes = [each.partition("`")[2].partition("`")[0] for each in answer["description"].split("\n")]
        return status, "", joined((_link_to_error(each) for each in codes), " ")
    bodies = [
        in_words(content["schema"]) if "$ref" in content.get("schema", {}) else code(kind)
        for kind, content in answer.get("content", {}).items()
    ]
    return status, joined(bodies, ", "), inline(answer["description"])


def _link_to_error(name: str) -> Markup:
    own = {of_openai: kind.code for kind, of_openai in CODES.items()}
    return link(f"#problem-{own.get(name, name)}", code(name))


def _schemas(schemas: Mapping[str, Any]) -> Markup:
    """The schemas of answers; those of bodies are with their operations."""
    sections = [
        element(
            "section",
            element("h3", name, id=f"schema-{name}"),
            prose(schema["description"]) if "description" in schema else "",
            table(name, ("member", "type", "meaning"), _members(schema)),
        )
        for name, schema in sorted(schemas.items())
        if not name.endswith(("Multipart", "Json", "Urlencoded"))
    ]
    return element("section", element("h2", "Schemas", id="schemas"), *sections)


def _warnings() -> Markup:
    rows = [(code(name), inline(about)) for name, about in WARNINGS.items()]
    return element(
        "section", element("h2", "Warnings", id="warnings"), table("Warnings", ("code", "what happened"), rows)
    )


def _errors() -> Markup:
    sections = [
        element(
            "section",
            element("h3", code(kind.code), id=f"problem-{kind.code}"),
            element("p", f"{kind.status}: {kind.title}."),
            element("p", inline(REMEDIES[kind.code])),
        )
        for kind in sorted(classes(ServiceError), key=lambda kind: (kind.status, kind.code))
    ]
    return element("section", element("h2", "Errors", id="errors"), *sections, class_="errors")
