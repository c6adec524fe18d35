"""Deflates filtered rows strip by strip, each in the way that makes it smallest.

A photograph is mostly noise once its rows are filtered: Huffman codes, of single bytes or of run lengths, do nearly as
well as a search for matches, in a tenth of the time. Drawings and interfaces need the search, the flattest of them on
unfiltered rows. Which is which differs within one picture: so all are tried on a sample of every strip, and the
smallest result is kept.

The formats are those of RFC 1950 and RFC 1951.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from PIL import Image
from zlib_ng import zlib_ng

from service.imaging.filters import ALL, GUESS, LINEAR, NONE, SUB, UP, Filtered, filter_rows, prices


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to try; `search` and `flat` are levels of zlib-ng, None leaves that way out.

    A share is how much is left of a strip's bytes, here by quick codes: Huffman codes, of single bytes or run lengths.

    filters  to choose from: each row takes the one that promises the fewest bits
    search   looks for matches in the filtered rows
    sample   so many bytes from the middle of each strip tell what that promises
    others   filters to choose from for the search of a thin strip instead, where the sample promises to gain
    thin     a strip of a smaller share is thin; any other is dense, and hard to shorten
    worth    so much of the best result until now may be what the search promises to leave of a thin, a dense strip
    deep     the search of a thin strip goes one level deeper if it promises to leave less of what quick codes leave
    flat     looks for matches in the unfiltered rows: of flat strips; of nearly empty ones and of palette indices
    rest     after a strip of a larger share where nothing gains, the next ones, if alike, go by with quick codes
    """

    filters: tuple[int, ...] = ALL
    search: int | None = None
    sample: int = 1 << 14
    others: tuple[tuple[int, ...], ...] = ()
    thin: float = 0.2
    worth: tuple[float, float] = (1.0, 0.97)
    deep: float = 0.85
    flat: tuple[int, int] | None = None
    rest: float = 0.06


# Measured points (`python -m bench.codecs`): each is smaller in total, and faster, than Pillow's level of its number.
EFFORTS = (
    Effort((UP,)),
    Effort((SUB, UP)),
    Effort((SUB, UP), flat=(3, 3)),
    Effort(flat=(3, 3)),
    Effort(flat=(6, 6)),
    Effort(search=5, worth=(0.95, 0.95), flat=(6, 6)),
    Effort(search=6, worth=(0.95, 0.95), flat=(6, 6)),
    Effort(search=6, worth=(0.98, 0.96), flat=(7, 7)),
    Effort(search=7, worth=(0.98, 0.96), flat=(7, 9)),
    Effort(search=7, flat=(7, 9)),
)
# For who would rather wait: at 8 no larger than libvips at its level 9, at 9 within a hundredth of Pillow's on every
# picture measured.
THOROUGH = (
    *EFFORTS[:8],
    Effort(search=7, others=((SUB,),), thin=0.3, worth=(1.065, 1.05), deep=0.95, flat=(9, 9), rest=0.3),
    Effort(
        search=7,
        sample=1 << 15,
        others=(LINEAR, (SUB,), (UP,)),
        thin=0.41,
        worth=(1.065, 1.05),
        deep=1.065,
        flat=(9, 9),
        rest=0.41,
    ),
)

SEARCH, FEW_MATCHES = zlib_ng.Z_DEFAULT_STRATEGY, zlib_ng.Z_FILTERED
HUFFMAN, RUN_LENGTHS = zlib_ng.Z_HUFFMAN_ONLY, zlib_ng.Z_RLE
WINDOW_BYTES = 1 << 15
RECENT_BYTES = 1 << 16  # of the strip before, whose values tell what each will cost in this one
# The largest share of a strip that is ...
SPARSE = 0.06  # nearly empty: a sample would miss what there is, and every way is quick
FLAT = 0.15  # such that unfiltered rows may be smaller: they are looked at

REST = 2  # strips that go by with what was best for the one before: quick codes, or some of the filters
RARE = 0.15  # of the rows: a filter that fewer chose is left out of the next ones
EMPTIER = 0.9  # of what Huffman codes leave of the sample: a strip that they shorten more may have runs all the same
ALIKE = 0.7  # of the larger of two shares: if the smaller one is more, they are alike
HINT = 1.0  # of what quick codes leave: a quick search that leaves more of unfiltered rows shows that they do not pay


def deflated(
    strips: Iterable[tuple[Image.Image, bool]], distance: int, indexed: bool, effort: Effort
) -> Iterator[bytes]:
    """Strips of rows as one zlib stream; each comes with the row above it, and whether it is the last."""
    yield b"\x78\xda"
    checksum = 1
    deflater = StripDeflater(effort, distance, indexed)
    for strip, last in strips:
        lines, part = deflater.smallest(strip, zlib_ng.Z_FINISH if last else zlib_ng.Z_SYNC_FLUSH)
        checksum = zlib_ng.adler32(lines, checksum)
        yield part
    yield struct.pack(">I", checksum)


@dataclass(frozen=True, slots=True)
class Way:
    """Rows behind the numbers of their filters, and deflated."""

    lines: bytes
    deflated: bytes

    @property
    def share(self) -> float:
        """How much is left of the bytes."""
        return len(self.deflated) / len(self.lines)


@dataclass(slots=True)
class StripDeflater:
    """Deflates strip after strip; `distance` is how many bytes lie between a pixel and the one to its left.

    A strip leaves to the next ones its last bytes, `window`, and what it taught: the `price` of each byte value; the
    filters to choose from, `narrowed`; how many go by with quick codes, `resting`, while their share is like `rested`.
    """

    effort: Effort
    distance: int
    indexed: bool
    window: bytes = b""
    resting: int = 0
    rested: float = 0.0
    narrowed: list[tuple[int, ...]] = field(default_factory=list)
    price: list[int] = field(default_factory=lambda: GUESS)

    def smallest(self, strip: Image.Image, end: int) -> tuple[bytes, bytes]:
        """The filtered rows, and deflated, in the best of the ways that the effort allows."""
        filters = self.narrowed.pop() if self.narrowed else self.effort.filters
        filtered = filter_rows(strip, self.distance, filters, self.price)
        lines = filtered.cheapest(filters)
        quick, sample = self.quick(lines, end)
        self.price = prices(lines[-RECENT_BYTES:]) if quick.share > SPARSE else GUESS
        if filters == ALL and not self.effort.others and quick.share > FLAT:
            chosen = lines[:: filtered.length]
            self.narrowed = [tuple(number for number in ALL if chosen.count(number) > RARE * len(chosen))] * REST
        best = quick
        if self.resting and alike(quick.share, self.rested):
            self.resting -= 1
        else:
            best = min((best, *self.unfiltered(strip, quick, end)), key=size)
            best = min((best, *self.searched(filtered, quick, sample, best, end)), key=size)
            self.resting = REST if best is quick and quick.share > self.effort.rest else 0
            self.rested = quick.share
        self.window = (self.window + best.lines)[-WINDOW_BYTES:]
        return best.lines, best.deflated

    def quick(self, lines: bytes, end: int) -> tuple[Way, Way]:
        """The rows, and a sample of them, by Huffman codes: of single bytes or of run lengths, as the sample tells."""
        middle = lines[self.middle(lines)]
        samples = {strategy: Way(middle, deflate(middle, 1, strategy)) for strategy in (HUFFMAN, RUN_LENGTHS)}
        strategy, sample = min(samples.items(), key=lambda tried: size(tried[1]))
        way = Way(lines, deflate(lines, 1, strategy, end=end))
        if strategy == HUFFMAN and way.share < EMPTIER * sample.share:
            way = min(way, Way(lines, deflate(lines, 1, RUN_LENGTHS, end=end)), key=size)
        return way, sample

    def middle(self, lines: bytes) -> slice:
        """Where the sample is."""
        return slice(max(0, len(lines) - self.effort.sample) // 2, (len(lines) + self.effort.sample) // 2)

    def unfiltered(self, strip: Image.Image, quick: Way, end: int) -> Iterator[Way]:
        """The rows as they are, unless a quick search speaks against them."""
        if self.effort.flat is None or (quick.share > FLAT and not self.indexed):
            return
        lines = filter_rows(strip, self.distance, (NONE,), self.price).cheapest((NONE,))
        sparse = self.indexed or quick.share < SPARSE
        if sparse or len(deflate(lines, 3, SEARCH, self.window)) < HINT * size(quick):
            yield Way(lines, deflate(lines, self.effort.flat[sparse], SEARCH, self.window, end))

    def searched(self, filtered: Filtered, quick: Way, sample: Way, best: Way, end: int) -> Iterator[Way]:
        """The filtered rows after a search for matches, if the sample promises it or is unlike its strip.

        Where other filters do not keep what it promised of them, the first ones are searched, too.
        """
        level = self.effort.search
        if level is None:
            return
        thin = quick.share < self.effort.thin
        lines, promise = quick.lines, 0.0
        if quick.share > SPARSE and alike(sample.share, quick.share):
            lines, promise = self.promised(filtered, lines, sample, thin)
        if promise * size(quick) < self.effort.worth[not thin] * size(best):
            deeper = thin and promise < self.effort.deep
            # Short matches rarely pay where few long ones are; the less so, the cheaper the bytes that they stand for.
            strategy = FEW_MATCHES if promise > 0.85 + 0.25 * quick.share else SEARCH
            way = Way(lines, deflate(lines, level + deeper, strategy, self.window, end))
            yield way
            if lines is not quick.lines and size(way) > promise * size(quick):
                yield Way(quick.lines, deflate(quick.lines, level + deeper, strategy, self.window, end))

    def promised(self, filtered: Filtered, lines: bytes, sample: Way, thin: bool) -> tuple[bytes, float]:
        """The rows for a search, and how much it leaves of what quick codes leave: both by the sample."""
        middle = self.middle(lines)

        def searched(lines: bytes) -> float:
            before = lines[max(0, middle.start - WINDOW_BYTES) : middle.start]
            return len(deflate(lines[middle], 6, SEARCH, before)) / size(sample)

        promise = searched(lines)
        if promise < 1 and thin:
            for filters in self.effort.others:
                other = filtered.cheapest(filters)
                if (left := searched(other)) < promise:
                    lines, promise = other, left
        return lines, promise


def size(way: Way) -> int:
    return len(way.deflated)


def alike(share: float, other: float) -> bool:
    """Whether bytes of one share tell anything about bytes of the other."""
    return min(share, other) > ALIKE * max(share, other)


def deflate(data: bytes, level: int, strategy: int, window: bytes = b"", end: int = zlib_ng.Z_SYNC_FLUSH) -> bytes:
    """Raw deflate (RFC 1951) that may point back into `window`, the bytes before `data`."""
    deflater = zlib_ng.compressobj(level, zlib_ng.DEFLATED, -15, 9, strategy, window)
    return deflater.compress(data) + deflater.flush(end)
