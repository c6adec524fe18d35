"""HTML elements as text: whatever is not markup already is escaped."""

import html
import re
from collections.abc import Iterable

_INLINE = re.compile(r"`([^`]+)`|\[([^]]+)\]\(([^)]+)\)")
_VOID = ("link", "meta")


class Markup(str):
    """Text that is HTML."""

    __slots__ = ()


def element(tag: str, *content: str, **attributes: str) -> Markup:
    """An element; a trailing underscore of an attribute's name is dropped, others become dashes."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for name, value in attributes.items()
    )
    return Markup(f"<{tag}{written}>" if tag in _VOID else f"<{tag}{written}>{joined(content)}</{tag}>")


def joined(content: Iterable[str], separator: str = "") -> Markup:
    return Markup(separator.join(each if isinstance(each, Markup) else html.escape(each) for each in content))


def code(text: str) -> Markup:
    return element("code", text)


def link(target: str, *content: str) -> Markup:
    return element("a", *content, href=target)


def inline(text: str) -> Markup:
    """A line of CommonMark, of which only code and links are used here."""
    parts: list[str] = []
    end = 0
    for match in _INLINE.finditer(text):
        parts.append(text[end : match.start()])
        parts.append(code(match[1]) if match[1] else link(match[3], match[2]))
        end = match.end()
    return joined([*parts, text[end:]])


def prose(text: str) -> Markup:
    """Paragraphs of CommonMark, separated by empty lines."""
    return joined(element("p", inline(paragraph)) for paragraph in text.split("\n\n"))


def table(caption: str, heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Markup:
    """A table that scrolls where it is too wide; the first cell of a row is its head."""
    head = element("tr", *(element("th", each, scope="col") for each in heads))
    body = [
        element("tr", element("th", first, scope="row"), *(element("td", each) for each in rest))
        for first, *rest in rows
    ]
    written = element(
        "table", element("caption", caption, class_="unseen"), element("thead", head), element("tbody", *body)
    )
    return element("div", written, class_="scroll", tabindex="0", role="region", aria_label=caption)
