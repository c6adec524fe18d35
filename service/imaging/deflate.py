"""Deflate for PNG: each strip of rows is compressed in several ways, and the smallest result is kept.

Once its rows are filtered, a photograph is mostly noise: entropy coding alone (Huffman codes of single bytes or of run
lengths) does nearly as well as a search for matches, in a tenth of the time. Drawings and interfaces need the search,
the flattest of them on unfiltered rows. One picture can hold both kinds, so a sample of every strip decides what is
tried on it.

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
    """The compression effort of one level.

    The *entropy ratio* of a strip is its bytes after entropy coding alone / its bytes before. The *search ratio* is
    its bytes after a search for matches / its bytes after entropy coding alone; a sample predicts it.

    filters              to choose from: each row takes the one that promises the fewest bits
    search_level         level of zlib-ng for the match search in filtered rows; None: no search
    sample_bytes         bytes from the middle of each strip that predict the search ratio
    alternative_filters  sets of filters also sampled for a compressible strip, where the sample promises a gain
    compressible_below   entropy ratio under which a strip is compressible; all others are dense
    search_below         search when predicted bytes / smallest bytes so far is less: (compressible, dense strips)
    deeper_below         search ratio, as predicted, under which a compressible strip is searched one level deeper
    raw_levels           levels of zlib-ng for unfiltered rows: (flat strips; nearly empty or indexed ones, and flat
                         pictures as a whole); None: not tried
    skip_above           entropy ratio over which, after a strip that gained nothing, similar ones are not searched
    """

    filters: tuple[int, ...] = ALL
    search_level: int | None = None
    sample_bytes: int = 1 << 14
    alternative_filters: tuple[tuple[int, ...], ...] = ()
    compressible_below: float = 0.2
    search_below: tuple[float, float] = (1.0, 0.97)
    deeper_below: float = 0.85
    raw_levels: tuple[int, int] | None = None
    skip_above: float = 0.06


# Measured points (`python -m bench.codecs`): each is smaller in total, and faster, than Pillow's level of its number.
EFFORTS = (
    Effort((UP,)),
    Effort((SUB, UP)),
    Effort((SUB, UP), raw_levels=(3, 3)),
    Effort(raw_levels=(3, 3)),
    Effort(raw_levels=(6, 6)),
    Effort(search_level=5, search_below=(0.95, 0.95), raw_levels=(6, 6)),
    Effort(search_level=6, search_below=(0.95, 0.95), raw_levels=(6, 6)),
    Effort(search_level=6, search_below=(0.98, 0.96), raw_levels=(7, 7)),
    Effort(search_level=7, search_below=(0.98, 0.96), raw_levels=(7, 9)),
    Effort(search_level=7, raw_levels=(7, 9)),
)
# Slower and smaller: 8 is no larger than libvips at its level 9, 9 within a hundredth of Pillow's level 9 on every
# picture measured.
THOROUGH = (
    *EFFORTS[:8],
    Effort(
        search_level=7,
        alternative_filters=((SUB,),),
        compressible_below=0.3,
        search_below=(1.065, 1.05),
        deeper_below=0.95,
        raw_levels=(9, 9),
        skip_above=0.3,
    ),
    Effort(
        search_level=7,
        sample_bytes=1 << 15,
        alternative_filters=(LINEAR, (SUB,), (UP,)),
        compressible_below=0.41,
        search_below=(1.065, 1.05),
        deeper_below=1.065,
        raw_levels=(9, 9),
        skip_above=0.41,
    ),
)

SEARCH, LONG_MATCHES = zlib_ng.Z_DEFAULT_STRATEGY, zlib_ng.Z_FILTERED
HUFFMAN, RUN_LENGTHS = zlib_ng.Z_HUFFMAN_ONLY, zlib_ng.Z_RLE
SAMPLE_LEVEL, HINT_LEVEL = 6, 3
WINDOW_BYTES = 1 << 15
RECENT_BYTES = 1 << 16  # of the previous strip; their histogram is the price of each byte value in this one

# Entropy ratios. Under the first a strip is nearly empty: a sample would miss its content, and every attempt is quick.
# Under the second unfiltered rows may be smaller, so they are tried.
NEARLY_EMPTY = 0.06
FLAT = 0.15

SKIPPED_STRIPS = 2  # after a strip that gained nothing, this many similar ones skip the costly attempts
RARE = 0.15  # a filter chosen by a smaller part of the rows is left out of the next SKIPPED_STRIPS strips
EMPTIER = 0.9  # a strip whose entropy ratio / its sample's is less may have runs that the sample did not show
SIMILAR = 0.7  # two strips are similar if smaller / larger of their entropy ratios is more
HINT = 1.0  # unfiltered rows are tried if their bytes after a quick search / after entropy coding are less
MATCHES_PAY = (0.85, 0.25)  # short matches are dropped if search ratio > the first + the second * entropy ratio


def deflated(
    strips: Iterable[tuple[Image.Image, bool]], distance: int, indexed: bool, effort: Effort
) -> Iterator[bytes]:
    """Strips of rows as one zlib stream; each comes with the row above it, and whether it is the last."""
    yield b"\x78\xda"
    checksum = 1
    deflater = StripDeflater(effort, distance, indexed)
    for strip, last in strips:
        scanlines, part = deflater.smallest(strip, zlib_ng.Z_FINISH if last else zlib_ng.Z_SYNC_FLUSH)
        checksum = zlib_ng.adler32(scanlines, checksum)
        yield part
    yield struct.pack(">I", checksum)


@dataclass(frozen=True, slots=True)
class Attempt:
    """The rows of a strip, each after the number of its filter, and the same compressed."""

    scanlines: bytes
    deflated: bytes

    @property
    def ratio(self) -> float:
        """Bytes after / bytes before."""
        return len(self.deflated) / len(self.scanlines)


@dataclass(slots=True)
class StripDeflater:
    """Compresses strip after strip; `distance` is how many bytes lie between a pixel and the one to its left.

    State carried from one strip to the next: `window`, the last bytes, which matches may point into; `price`, the cost
    of each byte value in bits; `filter_sets`, smaller sets of filters for the next strips; `skips`, how many similar
    strips skip the search, and `skipped_ratio`, the entropy ratio that they must be similar to.
    """

    effort: Effort
    distance: int
    indexed: bool
    window: bytes = b""
    skips: int = 0
    skipped_ratio: float = 0.0
    filter_sets: list[tuple[int, ...]] = field(default_factory=list)
    price: list[int] = field(default_factory=lambda: GUESS)

    def smallest(self, strip: Image.Image, end: int) -> tuple[bytes, bytes]:
        """The scanlines, and the smallest of the attempts that the effort allows."""
        filters = self.filter_sets.pop() if self.filter_sets else self.effort.filters
        filtered = filter_rows(strip, self.distance, filters, self.price)
        coded, sample = self.entropy_coded(filtered.cheapest(filters), end)
        self.price = prices(coded.scanlines[-RECENT_BYTES:]) if coded.ratio > NEARLY_EMPTY else GUESS
        if filters == ALL and not self.effort.alternative_filters and coded.ratio > FLAT:
            self.filter_sets = [frequent_filters(coded.scanlines[:: filtered.length])] * SKIPPED_STRIPS
        best = coded
        if self.skips and similar(coded.ratio, self.skipped_ratio):
            self.skips -= 1
        else:
            best = min((best, *self.unfiltered(strip, coded, end)), key=size)
            best = min((best, *self.searched(filtered, coded, sample, best, end)), key=size)
            self.skips = SKIPPED_STRIPS if best is coded and coded.ratio > self.effort.skip_above else 0
            self.skipped_ratio = coded.ratio
        self.window = (self.window + best.scanlines)[-WINDOW_BYTES:]
        return best.scanlines, best.deflated

    def entropy_coded(self, scanlines: bytes, end: int) -> tuple[Attempt, Attempt]:
        """The scanlines, and a sample of them, by entropy coding alone: of single bytes or of run lengths."""
        middle = scanlines[self.sample_slice(scanlines)]
        samples = {strategy: Attempt(middle, deflate(middle, 1, strategy)) for strategy in (HUFFMAN, RUN_LENGTHS)}
        strategy, sample = min(samples.items(), key=lambda tried: size(tried[1]))
        coded = Attempt(scanlines, deflate(scanlines, 1, strategy, end=end))
        if strategy == HUFFMAN and coded.ratio < EMPTIER * sample.ratio:
            coded = min(coded, Attempt(scanlines, deflate(scanlines, 1, RUN_LENGTHS, end=end)), key=size)
        return coded, sample

    def sample_slice(self, scanlines: bytes) -> slice:
        """The sample_bytes in the middle."""
        length, sample = len(scanlines), self.effort.sample_bytes
        return slice(max(0, length - sample) // 2, (length + sample) // 2)

    def unfiltered(self, strip: Image.Image, coded: Attempt, end: int) -> Iterator[Attempt]:
        """An attempt without filters, unless a quick search speaks against it."""
        if self.effort.raw_levels is None or (coded.ratio > FLAT and not self.indexed):
            return
        scanlines = filter_rows(strip, self.distance, (NONE,), self.price).cheapest((NONE,))
        nearly_empty = self.indexed or coded.ratio < NEARLY_EMPTY
        if nearly_empty or len(deflate(scanlines, HINT_LEVEL, SEARCH, self.window)) < HINT * size(coded):
            level = self.effort.raw_levels[nearly_empty]
            yield Attempt(scanlines, deflate(scanlines, level, SEARCH, self.window, end))

    def searched(
        self, filtered: Filtered, coded: Attempt, sample: Attempt, best: Attempt, end: int
    ) -> Iterator[Attempt]:
        """Attempts with a match search, if the sample predicts a gain or is unlike its strip.

        Where alternative filters turn out worse than their sample predicted, the original ones are searched too.
        """
        if self.effort.search_level is None:
            return
        compressible = coded.ratio < self.effort.compressible_below
        scanlines, predicted = coded.scanlines, 0.0
        if coded.ratio > NEARLY_EMPTY and similar(sample.ratio, coded.ratio):
            scanlines, predicted = self.predicted(filtered, scanlines, sample, compressible)
        if predicted * size(coded) >= self.effort.search_below[not compressible] * size(best):
            return
        level = self.effort.search_level + (compressible and predicted < self.effort.deeper_below)
        # Short matches rarely pay where there are few long ones, and the less so the cheaper the bytes they replace.
        least, slope = MATCHES_PAY
        strategy = LONG_MATCHES if predicted > least + slope * coded.ratio else SEARCH
        attempt = Attempt(scanlines, deflate(scanlines, level, strategy, self.window, end))
        yield attempt
        if scanlines is not coded.scanlines and size(attempt) > predicted * size(coded):
            yield Attempt(coded.scanlines, deflate(coded.scanlines, level, strategy, self.window, end))

    def predicted(
        self, filtered: Filtered, scanlines: bytes, sample: Attempt, compressible: bool
    ) -> tuple[bytes, float]:
        """The scanlines to search, and their search ratio: both as the sample predicts."""
        middle = self.sample_slice(scanlines)

        def search_ratio(scanlines: bytes) -> float:
            before = scanlines[max(0, middle.start - WINDOW_BYTES) : middle.start]
            return len(deflate(scanlines[middle], SAMPLE_LEVEL, SEARCH, before)) / size(sample)

        lowest = search_ratio(scanlines)
        if lowest < 1 and compressible:
            for filters in self.effort.alternative_filters:
                other = filtered.cheapest(filters)
                if (ratio := search_ratio(other)) < lowest:
                    scanlines, lowest = other, ratio
        return scanlines, lowest


def frequent_filters(chosen: bytes) -> tuple[int, ...]:
    """Those filters that more than RARE of the rows chose; `chosen` is the number of each row's filter."""
    return tuple(number for number in ALL if chosen.count(number) > RARE * len(chosen))


def size(attempt: Attempt) -> int:
    return len(attempt.deflated)


def similar(ratio: float, other: float) -> bool:
    """Whether two entropy ratios are so close that the gain in one strip or sample predicts that in the other."""
    return min(ratio, other) > SIMILAR * max(ratio, other)


def deflate(data: bytes, level: int, strategy: int, window: bytes = b"", end: int = zlib_ng.Z_SYNC_FLUSH) -> bytes:
    """Raw deflate (RFC 1951) that may point back into `window`, the bytes before `data`."""
    deflater = zlib_ng.compressobj(level, zlib_ng.DEFLATED, -15, 9, strategy, window)
    return deflater.compress(data) + deflater.flush(end)
