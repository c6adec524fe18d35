"""Words from outside, made safe to quote in answers, events and logs."""

import re
from urllib.parse import quote

# What a terminal or a browser obeys instead of showing it: control characters (ESC among them), marks that turn the
# direction of text, separators of lines, the byte order mark.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff]")
# `user:password@` of a URL, such as a proxy's.
_USER_INFO = re.compile(r"(?<=://)[^\s/@]+@")


def whole_characters(text: str) -> str:
    """Gemini's words may be cut within a character, and no answer can carry half of one: `?` stands for it."""
    return text.encode(errors="replace").decode()


def visible(text: str, keep: str = "") -> str:
    r"""`text` with every hidden character but those of `keep` as an escape such as `\u202e`."""
    if text.isprintable():
        return text
    return _HIDDEN.sub(lambda match: match[0] if match[0] in keep else f"\\u{ord(match[0]):04x}", text)


def without_key(text: str, key: str) -> str:
    """`text` with `[key]` wherever the secret `key` is, as it is or as in a URL; an empty key hides nothing."""
    if key:
        for form in (key, quote(key, safe="")):
            text = text.replace(form, "[key]")
    return text


def log_safe(text: str, key: str, keep: str = "") -> str:
    """What the log may show of a text."""
    if "@" in text:
        text = _USER_INFO.sub("[user]@", text)
    return visible(without_key(text, key), keep)
