"""Exact palettes: the colours of images that have few of them, and the index of each pixel's colour."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from PIL import Image

MOST_COLOURS = 256
BAND_PIXELS = 1 << 20  # converted to palette indices at once, with 14 bytes of memory a pixel

Colour = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Palette:
    """The sorted colours of RGB or RGBA images: (red, green, blue), or (alpha, red, green, blue).

    Transparent colours come first. `tables` has one lookup table for each channel but the first.
    """

    mode: str
    colours: list[Colour]
    tables: list[list[int]]

    @property
    def rgb(self) -> bytes:
        return bytes(value for colour in self.colours for value in colour[-3:])

    @property
    def alpha(self) -> bytes:
        """The alpha of those colours that are not opaque."""
        return bytes(colour[0] for colour in self.colours if colour[0] < 255) if self.mode == "RGBA" else b""

    def indices(self, image: Image.Image) -> Image.Image:
        """A P image, without a palette: the index of each pixel's colour, which must be one of these."""
        indices = Image.new("P", image.size)
        step = max(1, BAND_PIXELS // image.width)
        for top in range(0, image.height, step):
            band = image.crop((0, top, image.width, min(top + step, image.height)))
            indices.paste(_ranks([band.getchannel(channel) for channel in _order(self.mode)], self.tables), (0, top))
        return indices


def exact_palette(images: Iterable[Image.Image], most: int = MOST_COLOURS) -> Palette | None:
    """The palette of all `images` together, which share one mode; None if they have more than `most` colours."""
    mode, found = "RGB", set[Colour]()
    for image in images:
        mode = image.mode
        counted = cast("list[tuple[int, Colour]] | None", image.getcolors(most))
        if counted is None:
            return None
        found.update(colour for _, colour in counted)
        if len(found) > most:
            return None
    places = [mode.index(channel) for channel in _order(mode)]
    colours = sorted(tuple(colour[place] for place in places) for colour in found)
    return Palette(mode, colours, _rank_tables(colours))


def _order(mode: str) -> str:
    return "ARGB" if mode == "RGBA" else "RGB"


def _rank_tables(colours: list[Colour]) -> list[list[int]]:
    """Lookup tables from a colour to its index among the sorted `colours`, one for each channel but the first.

    A table takes the rank of the channels before, plus 256 times this channel's value, to the rank of all of them
    together. At most 256 colours have at most 256 different prefixes, so each rank fits into a byte.
    """
    tables = []
    before: dict[Colour, int] = {(value,): value for value in range(256)}
    for many in range(2, len(colours[0]) + 1):
        now = {start: rank for rank, start in enumerate(sorted({colour[:many] for colour in colours}))}
        table = [0] * 65536
        for start, rank in now.items():
            table[before[start[:-1]] | start[-1] << 8] = rank
        tables.append(table)
        before = now
    return tables


def _ranks(channels: list[Image.Image], tables: list[list[int]]) -> Image.Image:
    """The index of each pixel's colour among the sorted colours, by the lookup tables."""
    rank = channels[0]
    for channel, table in zip(channels[1:], tables, strict=True):
        pair = Image.frombuffer("I;16", rank.size, Image.merge("LA", (rank, channel)).tobytes())
        rank = pair.convert("I").point(table, "L")
    return rank
