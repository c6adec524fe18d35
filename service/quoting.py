"""Sanitizes text from outside (Gemini, clients, proxies) for answers, events and logs."""

import re
from functools import lru_cache

# Characters that a terminal or browser interprets instead of showing: control characters (ESC among them),
# bidirectional marks, line separators, the byte order mark.
_HIDDEN_RANGES = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff"
_HIDDEN = re.compile(f"[{_HIDDEN_RANGES}]")
EXCERPT = 200
# A long text is cut to this before it is searched for secrets: a search of megabytes would hold the GIL.
_SEARCHED = 16 * 1024
# May stand between two characters of the key: white space, invisible characters, the punctuation of lists and JSON,
# escapes. No text may match in two ways, or a search takes exponential time.
_SEPARATORS = (
    rf"""(?:[\s{_HIDDEN_RANGES}\u00ad\u200b-\u200d\u2060,;:()\[\]{{}}]"""
    r"""|\\{0,4}["']|\\{1,4}(?:[nrt]|u00[01][0-9a-f])){0,12}"""
)
# `user:password@` of a URL, such as a proxy's.
_USER_INFO = re.compile(r"(?<=://)[^\s/@]+@")


def without_surrogates(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode, by `?`."""
    return text.encode(errors="replace").decode()


def visible(text: str, keep: str = "") -> str:
    r"""`text` with every hidden character, except those in `keep`, as a visible escape such as `\u202e`."""
    if text.isprintable():
        return text
    return _HIDDEN.sub(lambda match: match[0] if match[0] in keep else f"\\u{ord(match[0]):04x}", text)


def without_key(text: str, key: str) -> str:
    """Replace `key` by `[key]`, however it is escaped or cut apart; does nothing for an empty key."""
    return _key_pattern(key).sub("[key]", text) if key else text


@lru_cache(maxsize=4)
def _key_pattern(key: str) -> re.Pattern[str]:
    """Matches the key in any case, with escapes of JSON, URLs and HTML, and cut apart by _SEPARATORS."""
    return re.compile(_SEPARATORS.join(map(_character_pattern, key)), re.IGNORECASE)


def _character_pattern(character: str) -> str:
    number = ord(character)
    percent = "".join(f"%{byte:02x}" for byte in character.encode(errors="replace"))
    html = f"&#(?:0{{0,4}}{number}|x0{{0,4}}{number:x});"
    return rf"(?:\\{{0,4}}{re.escape(character)}|\\{{1,4}}u{number:04x}|{percent}|{html})"


def without_secrets(text: str, key: str) -> str:
    """Replace `key`, and the user and password of any URL."""
    return without_key(_USER_INFO.sub("[user]@", text) if "@" in text else text, key)


def log_safe(text: str, key: str, keep: str = "") -> str:
    """Sanitize a text for the log."""
    return visible(without_secrets(text, key), keep)


def excerpt(text: str, key: str) -> str:
    """The beginning of a text from outside, on one line, sanitized."""
    plain = visible(without_surrogates(without_secrets(" ".join(text.split())[:_SEARCHED], key)))
    return plain if len(plain) <= EXCERPT else f"{plain[:EXCERPT]}…"
