"""Words from outside, made safe to quote in answers, events and logs."""

import re
from functools import lru_cache

# What a terminal or a browser obeys instead of showing it: control characters (ESC among them), marks that turn the
# direction of text, separators of lines, the byte order mark.
_HIDDEN_RANGES = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff"
_HIDDEN = re.compile(f"[{_HIDDEN_RANGES}]")
EXCERPT = 200
# So much of a long text is searched for secrets before it is cut: a search of megabytes would hold the interpreter.
_SEARCHED = 16 * 1024
# What may separate two characters of the key: white space, invisible characters, the punctuation of a list or of JSON,
# and escapes. No text may match it in two ways, or a search takes exponential time.
_SEPARATORS = (
    rf"""(?:[\s{_HIDDEN_RANGES}\u00ad\u200b-\u200d\u2060,;:()\[\]{{}}]"""
    r"""|\\{0,4}["']|\\{1,4}(?:[nrt]|u00[01][0-9a-f])){0,12}"""
)
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
    """`text` with `[key]` wherever the secret `key` is, in whatever spelling; an empty key hides nothing."""
    return _spellings(key).sub("[key]", text) if key else text


@lru_cache(maxsize=4)
def _spellings(key: str) -> re.Pattern[str]:
    """The key in any case, with escapes of JSON, URLs and HTML, and cut apart by _SEPARATORS."""
    return re.compile(_SEPARATORS.join(map(_spelled, key)), re.IGNORECASE)


def _spelled(character: str) -> str:
    number = ord(character)
    percent = "".join(f"%{byte:02x}" for byte in character.encode(errors="replace"))
    html = f"&#(?:0{{0,4}}{number}|x0{{0,4}}{number:x});"
    return rf"(?:\\{{0,4}}{re.escape(character)}|\\{{1,4}}u{number:04x}|{percent}|{html})"


def without_secrets(text: str, key: str) -> str:
    """The same without the user and password of any URL in it."""
    return without_key(_USER_INFO.sub("[user]@", text) if "@" in text else text, key)


def log_safe(text: str, key: str, keep: str = "") -> str:
    """What the log may show of a text."""
    return visible(without_secrets(text, key), keep)


def excerpt(text: str, key: str) -> str:
    """The first words of what somebody else wrote, on one line and safe to show."""
    plain = visible(whole_characters(without_secrets(" ".join(text.split())[:_SEARCHED], key)))
    return plain if len(plain) <= EXCERPT else f"{plain[:EXCERPT]}…"
