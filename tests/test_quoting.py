import pytest

from service.errors import BadReply
from service.quoting import log_safe, visible, without_key


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, é 日本 👩‍🚀", "plain, é 日本 👩‍🚀"),
        ("\x1b[31mred\x07", "\\u001b[31mred\\u0007"),
        ("pay \u202efdp.exe\u2069", "pay \\u202efdp.exe\\u2069"),
        ("a\nb\tc\r\x00\x7f\x9b", "a\\u000ab\\u0009c\\u000d\\u0000\\u007f\\u009b"),
        ("\u200e\u200f\u061c\u2028\u2066\ufeff", "\\u200e\\u200f\\u061c\\u2028\\u2066\\ufeff"),
    ],
)
def test_hidden_characters_are_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_characters_in_keep_are_not_escaped() -> None:
    assert visible("a\n\tb\x1b", keep="\n\t") == "a\n\tb\\u001b"


@pytest.mark.parametrize(
    ("text", "key", "shown"),
    [
        ("key AIza-secret!", "AIza-secret", "key [key]!"),
        ("?key=a%2Fb%2Bc&x=a/b+c", "a/b+c", "?key=[key]&x=[key]"),
        ("?key=a/b%2bc", "a/b+c", "?key=[key]"),
        ("A/B+C", "a/b+c", "[key]"),
        (r"k \u0061\/\u0062\u002Bc, \\u0061/b+c", "a/b+c", "k [key], [key]"),
        ("a/\r\n b\x00+\x1bc", "a/b+c", "[key]"),
        (r"a\/\n\tb+c", "a/b+c", "[key]"),
        ("a&#47;b&#x2B;c", "a/b+c", "[key]"),
        ("['a/', 'b+c']", "a/b+c", "['[key]']"),
        ('{"a/": {"b": ["+"], "c": 1}}', "a/b+c", '{"[key]": 1}}'),
        ("a/\u200bb\u2060+\u00adc", "a/b+c", "[key]"),
        ("a/b + ccc", "a/bcc", "a/b + ccc"),
        ("nothing", "", "nothing"),
    ],
)
def test_the_key_is_hidden_in_every_spelling(text: str, key: str, shown: str) -> None:
    assert without_key(text, key) == shown


@pytest.mark.parametrize("separator", [" ", "\n", "\x1f", "\\n", "\\\\u001f", "', '"])
def test_a_text_that_almost_contains_the_key_is_searched_in_linear_time(separator: str) -> None:
    key = "AIzaSyD-abcdefghijklmnopqrstuvwxyz1"
    text = (separator * (12 // len(separator))).join(key[:-1]) + "!" * 100
    assert without_key(text * 10, key) == text * 10


def test_a_log_line_shows_no_password_of_a_url() -> None:
    shown = log_safe("cannot reach http://user:pass%40word@proxy:3128/x for me@example.com", "")
    assert shown == "cannot reach http://[user]@proxy:3128/x for me@example.com"


def test_the_detail_of_an_error_is_sanitized() -> None:
    assert BadReply("half \ud83d \x1b[1m \u202e").detail == "half ? \\u001b[1m \\u202e"
