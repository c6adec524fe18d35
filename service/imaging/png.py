"""Encodes PNG: filters rows with Pillow's image arithmetic and deflates each strip of them in the way that is smallest.

A photograph is mostly noise once its rows are filtered: run lengths and Huffman codes do nearly as well as a search for
matches, in a tenth of the time. Drawings and interfaces need the search, the flattest of them on unfiltered rows. Which
is which shows only in the result and differs within one picture, so every strip is deflated in each promising way, and
the smallest is kept.

The format, with the filters of its chapter 9, is that of https://www.w3.org/TR/png-3/.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, reduce
from math import log2
from typing import cast
from zlib import compress, crc32

from PIL import Image, ImageChops
from zlib_ng import zlib_ng

NONE, SUB, UP, AVERAGE, PAETH = range(5)
ALL = (SUB, UP, AVERAGE, PAETH)


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to try; `search` and `flat` are levels of zlib-ng, None leaves that way out.

    filters  each row takes the one that promises the fewest bits
    search   looks for matches in the filtered rows
    flat     looks for matches in the unfiltered rows, of flat strips and of palette indices
    rest     so many strips go by without the search after one where it gained too little
    """

    filters: tuple[int, ...] = ALL
    search: int | None = None
    flat: int | None = None
    rest: int = 3


# Measured points (`python -m bench.codecs`): each is smaller in total, and faster, than Pillow's level of its number.
EFFORTS = (
    Effort((UP,)),
    Effort((SUB, UP)),
    Effort((SUB, UP), flat=3),
    Effort(flat=3),
    Effort(flat=6),
    Effort(search=4, flat=6),
    Effort(search=5, flat=6),
    Effort(search=6, flat=8),
    Effort(search=7, flat=8),
    Effort(search=7, flat=9),
)
THOROUGH = Effort(search=8, flat=9, rest=0)

STRIP_BYTES = 1 << 18
WINDOW_BYTES = 1 << 15
BAND_PIXELS = 1 << 20  # that are turned into palette indices at once: it takes 14 bytes for each
FLAT = 0.15  # of its bytes: what run lengths leave of a flat strip, at most
LITTLE = 0.985  # of what run lengths leave: a search that leaves more gained too little
MUCH = (
    0.85  # the same: a search that leaves less gained so much that a deeper one pays where it is quick, in flat strips
)
SMALL_FILE = 1 << 14  # bytes below which a palette may cost more than it saves

# Mode: bits per pixel, bit depth, colour type.
PLAIN = {"1": (1, 1, 0), "L": (8, 8, 0), "LA": (16, 8, 4), "RGB": (24, 8, 2), "RGBA": (32, 8, 6)}
INDEXED = 3


@dataclass(frozen=True, slots=True)
class Form:
    """A picture as PNG holds it: `rawmode` packs its pixels into `bits` each; `palette` is its PLTE and tRNS chunks."""

    image: Image.Image
    rawmode: str
    bits: int
    depth: int
    colour_type: int
    palette: bytes = b""


def encode_png(
    image: Image.Image,
    compression: int,
    icc_profile: bytes | None = None,
    *,
    thorough: bool = False,
    palette: bool = True,
) -> bytes:
    """The PNG of a picture of mode 1, L, LA, P, RGB or RGBA; `compression` from 0 (fastest) to 9 (smallest).

    Every pixel is kept; equal pictures give equal bytes. The profile, of RGB colours, is embedded as it is. `thorough`
    goes on where 9 stops, `palette` allows one where there are at most 256 colours.
    """
    effort = THOROUGH if thorough else EFFORTS[compression]
    profile = profile_chunk(icc_profile) if icc_profile else b""
    plain, indexed = plain_form(image, bool(profile)), None
    if palette and plain.image.mode in ("RGB", "RGBA"):
        indexed = palette_form(plain.image)
    png = written(indexed or plain, profile, effort)
    if indexed and len(png) < SMALL_FILE:
        png = min(png, written(plain, profile, effort), key=len)
    return png


def plain_form(image: Image.Image, coloured: bool) -> Form:
    """The picture without a palette and without an alpha channel that hides nothing; `coloured`: grey becomes RGB."""
    if image.mode == "P":
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif coloured and image.mode in ("1", "L", "LA"):  # a grey PNG must not carry a profile of RGB colours
        image = image.convert("RGBA" if image.mode == "LA" else "RGB")
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert("RGB")
    return Form(image, image.mode, *PLAIN[image.mode])


def palette_form(image: Image.Image) -> Form | None:
    """An RGB or RGBA picture of at most 256 colours as indices; transparent colours come first, so tRNS ends early."""
    counted = cast("list[tuple[int, tuple[int, ...]]] | None", image.getcolors(256))
    if counted is None:
        return None
    order = "ARGB" if image.mode == "RGBA" else "RGB"
    places = [image.mode.index(channel) for channel in order]
    colours = sorted(tuple(colour[place] for place in places) for _, colour in counted)
    palette = chunk(b"PLTE", bytes(value for colour in colours for value in colour[-3:]))
    if image.mode == "RGBA":
        palette += chunk(b"tRNS", bytes(colour[0] for colour in colours if colour[0] < 255))
    depth = next(depth for depth in (1, 2, 4, 8) if len(colours) <= 1 << depth)
    tables = rank_tables(colours)
    indices = Image.new("P", image.size)
    step = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, step):
        band = image.crop((0, top, image.width, min(top + step, image.height)))
        indices.paste(ranks([band.getchannel(channel) for channel in order], tables), (0, top))
    return Form(indices, f"P;{depth}" if depth < 8 else "P", depth, depth, INDEXED, palette)


def rank_tables(colours: list[tuple[int, ...]]) -> list[list[int]]:
    """For each channel but the first: from the rank of the values before it, and its own times 256, to their rank.

    At most 256 colours begin in at most 256 ways, so that each rank fits into a byte.
    """
    tables = []
    before: dict[tuple[int, ...], int] = {(value,): value for value in range(256)}
    for many in range(2, len(colours[0]) + 1):
        now = {start: rank for rank, start in enumerate(sorted({colour[:many] for colour in colours}))}
        table = [0] * 65536
        for start, rank in now.items():
            table[before[start[:-1]] | start[-1] << 8] = rank
        tables.append(table)
        before = now
    return tables


def ranks(channels: list[Image.Image], tables: list[list[int]]) -> Image.Image:
    """The place of each pixel's colour among the sorted colours that the tables were made of."""
    rank = channels[0]
    for channel, table in zip(channels[1:], tables, strict=True):
        pair = Image.frombuffer("I;16", rank.size, Image.merge("LA", (rank, channel)).tobytes())
        rank = pair.convert("I").point(table, "L")
    return rank


def written(form: Form, profile: bytes, effort: Effort) -> bytes:
    header = struct.pack(">2I5B", *form.image.size, form.depth, form.colour_type, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            profile,
            form.palette,
            chunk(b"IDAT", b"".join(deflated(form, effort))),
            chunk(b"IEND", b""),
        )
    )


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(data, crc32(kind)))


@lru_cache(maxsize=4)
def profile_chunk(icc_profile: bytes) -> bytes:
    return chunk(b"iCCP", b"ICC Profile\0\0" + compress(icc_profile, 9))


def deflated(form: Form, effort: Effort) -> Iterator[bytes]:
    """The pixels as one zlib stream (RFC 1950)."""
    yield b"\x78\xda"
    checksum = 1
    deflater = StripDeflater(effort, max(1, form.bits // 8), bool(form.palette))
    for rows, last in strips(form):
        lines, part = deflater.smallest(rows, zlib_ng.Z_FINISH if last else zlib_ng.Z_SYNC_FLUSH)
        checksum = zlib_ng.adler32(lines, checksum)
        yield part
    yield struct.pack(">I", checksum)


@dataclass(slots=True)
class StripDeflater:
    """Deflates strip after strip; `distance` is how many bytes lie between a pixel and the one to its left."""

    effort: Effort
    distance: int
    indexed: bool
    window: bytes = b""
    resting: int = 0
    left: float = 1.0  # by the last search, as a share of what run lengths left

    def smallest(self, rows: Image.Image, end: int) -> tuple[bytes, bytes]:
        """The filtered rows, and deflated, in the best of the ways that the effort allows."""
        lines = filtered(rows, self.distance, self.effort.filters)
        run_lengths = deflate(lines, 1, zlib_ng.Z_RLE, b"", end)
        flat = len(run_lengths) < FLAT * len(lines)
        ways = [(lines, run_lengths)]
        if self.effort.flat and (flat or self.indexed):
            unfiltered = filtered(rows, self.distance, (NONE,))
            ways.append(
                (unfiltered, deflate(unfiltered, self.effort.flat, zlib_ng.Z_DEFAULT_STRATEGY, self.window, end))
            )
        if self.resting:
            self.resting -= 1
        elif self.effort.search:
            level = self.effort.search + (flat and self.left < MUCH)
            searched = deflate(lines, level, zlib_ng.Z_FILTERED, self.window, end)
            ways.append((lines, searched))
            self.left = len(searched) / len(run_lengths)
            self.resting = self.effort.rest if self.left > LITTLE else 0
        best = min(ways, key=lambda way: len(way[1]))
        self.window = (self.window + best[0])[-WINDOW_BYTES:]
        return best


def deflate(data: bytes, level: int, strategy: int, window: bytes, end: int) -> bytes:
    """Raw deflate (RFC 1951) that may point back into `window`, the bytes before `data`."""
    deflater = zlib_ng.compressobj(level, zlib_ng.DEFLATED, -15, 9, strategy, window)
    return deflater.compress(data) + deflater.flush(end)


def strips(form: Form) -> Iterator[tuple[Image.Image, bool]]:
    """The packed pixels from top to bottom as images of bytes, the row above in front, and whether it is the last."""
    width, height = form.image.size
    row_bytes = (width * form.bits + 7) // 8
    step = max(1, STRIP_BYTES // row_bytes)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        packed = form.image.crop((0, top - 1, width, bottom)).tobytes("raw", form.rawmode)
        yield Image.frombuffer("L", (row_bytes, bottom - top + 1), packed), bottom == height


def filtered(rows: Image.Image, distance: int, filters: tuple[int, ...]) -> bytes:
    """The rows but the first, each behind the number of its filter, which is the one whose residuals cost least.

    `distance` is how many bytes lie between a pixel and the one to its left.
    """
    choices = {number: residuals(rows, distance, number) for number in filters}
    if len(choices) == 1:
        return choices[filters[0]].tobytes()
    costs = {number: cost(lines) for number, lines in choices.items()}
    least = reduce(ImageChops.darker, costs.values())
    chosen = choices[filters[-1]]
    for number in reversed(filters[:-1]):
        mask = ImageChops.difference(costs[number], least).point(IF_ZERO)
        chosen.paste(choices[number], mask=mask.resize(chosen.size, Image.Resampling.NEAREST))
    return chosen.tobytes()


def residuals(rows: Image.Image, distance: int, number: int) -> Image.Image:
    """What filter `number` leaves of all rows but the first, its number in front of each."""
    width, height = rows.size

    def moved(right: int, down: int) -> Image.Image:
        return rows.crop((-1 - right, 1 - down, width - right, height - down))

    original, left, above = moved(0, 0), moved(distance, 0), moved(0, 1)
    match number:
        case 0:
            lines = original
        case 1:
            lines = ImageChops.subtract_modulo(original, left)
        case 2:
            lines = ImageChops.subtract_modulo(original, above)
        case 3:
            lines = ImageChops.subtract_modulo(original, Image.blend(left, above, 0.5))
        case _:
            lines = ImageChops.subtract_modulo(original, paeth(left, above, moved(distance, 1)))
    lines.paste(number, (0, 0, 1, lines.height))
    return lines


def paeth(left: Image.Image, above: Image.Image, corner: Image.Image) -> Image.Image:
    """Of the three neighbours, the nearest to left + above - corner.

    With the corner held between the other two, that is the one of them which it is at least twice as far away from, if
    any, or else the corner itself.
    """
    low, high = ImageChops.darker(left, above), ImageChops.lighter(left, above)
    between = ImageChops.darker(ImageChops.lighter(corner, low), high)
    step = ImageChops.subtract_modulo(between, low)
    whole = ImageChops.subtract_modulo(high, low)
    third = whole.point(THIRD)
    not_low = ImageChops.subtract_modulo(third, ImageChops.subtract_modulo(high, between)).point(OVER_THIRD)
    is_high = ImageChops.subtract_modulo(third, step).point(IN_THIRD)
    step = ImageChops.lighter(ImageChops.darker(step, not_low), ImageChops.darker(whole, is_high))
    return ImageChops.add_modulo(low, step)


def cost(lines: Image.Image) -> Image.Image:
    """One pixel per row: about how many bits it takes, judged by every fourth byte, on a scale of its own."""
    sample = lines.resize(((lines.width + 3) // 4, lines.height), Image.Resampling.NEAREST)
    return sample.point(BITS).reduce((sample.width, 1))


IF_ZERO = [255] + [0] * 255
THIRD = [value // 3 for value in range(256)]
# Masks over third - distance: at most 85 within the third, and below zero, from 86 modulo 256, outside.
IN_THIRD = [255] * 86 + [0] * 170
OVER_THIRD = [0] * 86 + [255] * 170
# A zero costs next to nothing, anything else two bits and those of its size: smaller files than the sum of sizes gives.
BITS = [0] + [round(28 * (2 + log2(1 + min(value, 256 - value)))) for value in range(1, 256)]
