"""Typesetting of the title: its text, font, size and line breaks."""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import ImageFont

# The first one is part of this package; the others are used for other writing systems, if they are installed.
_FONTS = (
    str(Path(__file__).with_name("DejaVuSansCondensed-Bold.ttf")),
    "NotoSansCJK-Bold.ttc",
    "NotoSansDevanagari-Bold.ttf",
    "NotoSansThai-Bold.ttf",
    "FreeSansBold.ttf",
)
_MEASURE = 100
_LINE = 1.14
_MAX_TITLE = 72
_UNASSIGNED = "\U000effff"

Font = ImageFont.FreeTypeFont


@dataclass(frozen=True, slots=True)
class Title:
    """Lines in `font`; `leading` is the distance in pixels from the top of one line to the next."""

    lines: tuple[str, ...]
    font: Font
    leading: float


def title_of(script: str) -> str:
    """The first line with text, shortened to the length of a title."""
    lines = (_clean(line) for line in script.splitlines())
    line = next((line for line in lines if line), "")
    if len(line) <= _MAX_TITLE:
        return line
    sentence = re.split(r"(?<=[.!?…])\s", line, maxsplit=1)[0]
    if len(sentence) <= _MAX_TITLE:
        return sentence
    cut = line[:_MAX_TITLE]
    return cut.rpartition(" ")[0].rstrip(",;:- ") + "…" if " " in cut else cut + "…"


def is_rtl(text: str) -> bool:
    """Whether the first letter with a direction is right-to-left."""
    directions = (unicodedata.bidirectional(char) for char in text)
    return next((one != "L" for one in directions if one in ("L", "R", "AL")), False)


def _clean(line: str) -> str:
    visible = "".join(char if unicodedata.category(char)[0] not in "CZ" else " " for char in line)
    return " ".join(visible.split()).strip("#*_=- ")


@cache
def _open(name: str) -> Font | None:
    try:
        return ImageFont.truetype(name, _MEASURE)
    except OSError:
        return None


@cache
def _built_in() -> Font:
    font = ImageFont.load_default(_MEASURE)
    assert isinstance(font, ImageFont.FreeTypeFont)  # noqa: S101 - with a size it always is
    return font


def _fonts() -> Iterator[Font]:
    yield from filter(None, map(_open, _FONTS))
    yield _built_in()


def _shown(text: str, font: Font) -> str:
    """The characters of `text` for which the font has glyphs."""
    plain = font.font_variant(size=24, layout_engine=ImageFont.Layout.BASIC)
    missing = bytes(plain.getmask(_UNASSIGNED))
    return "".join(char for char in text if char == " " or bytes(plain.getmask(char)) != missing)


def choose_font(text: str) -> tuple[str, Font]:
    """The font with glyphs for most of `text`, and the characters that it has."""
    best = ("", _built_in())
    for font in _fonts():
        shown = _shown(text, font)
        if len(shown) > len(best[0]):
            best = (shown, font)
        if shown == text:
            break
    return " ".join(best[0].split()), best[1]


def set_title(text: str, font: Font, width: float, height: float, smallest: float) -> Title:
    """Set `text` in the largest size that fits into `width` x `height` pixels; it is cut to fit at size `smallest`."""
    size = height * 0.55
    while True:
        breaks = size <= smallest
        size = max(size, smallest)
        lines = list(_wrap(text, _measure(font, size), width, breaks))
        fits = len(lines) * _LINE * size <= height and all(_measure(font, size)(line) <= width for line in lines)
        if fits or breaks:
            break
        size *= 0.94
    if not fits:
        lines = lines[: max(1, int(height / (_LINE * size)))]
    else:
        lines = _balance(text, _measure(font, size), width, len(lines), breaks)
    return Title(tuple(lines), font.font_variant(size=size), _LINE * size)


def _measure(font: Font, size: float) -> Callable[[str], float]:
    return lambda line: font.getlength(line) * size / _MEASURE


def _balance(text: str, measure: Callable[[str], float], width: float, count: int, breaks: bool) -> list[str]:
    """Balance the lengths of the lines, without changing their number."""
    lines = list(_wrap(text, measure, width, breaks))
    while (tighter := list(_wrap(text, measure, width := width * 0.96, breaks))) and len(tighter) == count:
        if any(measure(line) > width for line in tighter):
            break
        lines = tighter
    return lines


def _wrap(text: str, measure: Callable[[str], float], width: float, breaks: bool) -> Iterator[str]:
    line = ""
    for word in _words(text, measure, width, breaks):
        longer = f"{line} {word}".strip()
        if line and measure(longer) > width:
            yield line
            line = word
        else:
            line = longer
    if line:
        yield line


def _words(text: str, measure: Callable[[str], float], width: float, breaks: bool) -> Iterator[str]:
    """The words; with `breaks`, words wider than a line are split."""
    for word in text.split():
        piece = ""
        for char in word:
            if breaks and piece and measure(piece + char) > width:
                yield piece
                piece = ""
            piece += char
        yield piece
