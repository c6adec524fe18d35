"""Bytes and CPU of every format and level, compared with Pillow: `python -m bench.codecs`, under five minutes.

All codecs take turns on each picture, in rounds, until the time is up. A codec's CPU time on a picture is its median
over the rounds; ratios compare sums of these. The clock is the process's CPU time, libraries' threads included.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import get_args

from PIL import Image

from bench.drawings import drawings
from bench.pictures import SIZE, Kind, Picture, gather
from bench.table import machine, print_table
from service.imaging.png import encode_png

SMALL = 20_000  # bytes
SECONDS = 240.0  # a round that would end later is not started; the first one always is
BEST, NINE, THOROUGH = "PNG Pillow 9", "PNG ours 9", "PNG ours 9, thorough"

Codec = Callable[[Image.Image], bytes]


@dataclass(slots=True)
class Figures:
    """One codec on one picture."""

    size: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def cpu(self) -> float:
        return statistics.median(self.seconds)


Table = dict[str, dict[str, Figures]]  # codec, picture


def pillow(kind: str, **options: object) -> Codec:
    def encode(image: Image.Image) -> bytes:
        file = BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    return encode


def ours(level: int, thorough: bool = False, palette: bool = False) -> Codec:
    return lambda image: encode_png(image, level, thorough=thorough, palette=palette)


def libvips() -> dict[str, Codec]:
    """libvips, if it is installed, with all five filters, as Pillow has them."""
    try:
        import pyvips
    except (ImportError, OSError) as error:
        print(f"Left out: libvips ({error})")
        return {}

    def encode(image: Image.Image) -> bytes:
        picture = pyvips.Image.new_from_memory(image.tobytes(), *image.size, 3, "uchar")
        png: bytes = picture.pngsave_buffer(compression=6, filter="all")
        return png

    return {"PNG libvips 6": encode}


def codecs() -> dict[str, Codec]:
    named: dict[str, Codec] = {}
    for level in range(10):
        named[f"PNG Pillow {level}"] = pillow("PNG", compress_level=level)
        named[f"PNG ours {level}"] = ours(level)
    named["PNG ours 8, thorough"] = ours(8, thorough=True)
    named[THOROUGH] = ours(9, thorough=True)
    named["PNG ours 9, palette"] = ours(9, palette=True)
    named |= libvips()
    named["JPEG baseline"] = pillow("JPEG", quality=85)
    named["JPEG optimized"] = pillow("JPEG", quality=85, optimize=True)
    named["JPEG progressive"] = pillow("JPEG", quality=85, progressive=True)
    for method in range(7):
        named[f"WebP method {method}"] = pillow("WEBP", quality=80, method=method)
    return named


def measure(pictures: list[Picture]) -> tuple[Table, int]:
    """All codecs on all pictures, and the number of rounds; tuning pictures only get the codecs of the summary."""
    table: Table = defaultdict(lambda: defaultdict(Figures))
    named = codecs()
    began, rounds = time.monotonic(), 0
    while not rounds or (time.monotonic() - began) * (rounds + 1) / rounds < SECONDS:
        for picture in pictures:
            for name in (BEST, NINE, THOROUGH) if picture.tuning else named:
                start = time.process_time()
                made = named[name](picture.image)
                figures = table[name][picture.name]
                figures.seconds.append(time.process_time() - start)
                figures.size = len(made)
        rounds += 1
    return table, rounds


@dataclass(frozen=True, slots=True)
class Ratio:
    """One codec / another on the same pictures: total bytes, bytes of the worst picture, total CPU time."""

    size: float
    worst: float
    cpu: float


def ratio(table: Table, codec: str, to: str, names: list[str]) -> Ratio:
    mine, theirs = table[codec], table[to]
    return Ratio(
        sum(mine[name].size for name in names) / sum(theirs[name].size for name in names),
        max(mine[name].size / theirs[name].size for name in names),
        sum(mine[name].cpu for name in names) / sum(theirs[name].cpu for name in names),
    )


def print_levels(table: Table, names: list[str]) -> None:
    rows = []
    for codec in sorted(table):
        if codec.startswith("PNG"):
            peer = codec.replace("ours", "Pillow")
            best = ratio(table, codec, BEST, names)
            same = ratio(table, codec, peer, names) if peer in table and peer != codec else None
            cells = [f"{same.size:.3f}", f"{same.cpu:.3f}"] if same else ["", ""]
            rows.append([codec[4:], f"{best.size:.3f}", f"{best.worst:.3f}", f"{best.cpu:.3f}", *cells])
    print_table(("PNG", "bytes to Pillow 9", "worst picture", "CPU to Pillow 9", "bytes to same level", "CPU"), rows)


def print_summary(table: Table, groups: dict[str, list[str]]) -> None:
    rows = []
    for group, names in groups.items():
        figures = [ratio(table, codec, BEST, names) for codec in (NINE, THOROUGH)]
        cells = [f"{value:.3f}" for one in figures for value in (one.size, one.worst, one.cpu)]
        rows.append([group, str(len(names)), *cells])
    heads = ("level 9: bytes", "worst", "CPU", "thorough: bytes", "worst", "CPU")
    print_table(("PNG to Pillow 9", "pictures", *heads), rows)


def print_pictures(table: Table, pictures: list[Picture]) -> None:
    rows = []
    for picture in pictures:
        best = table[BEST][picture.name]
        figures = [ratio(table, codec, BEST, [picture.name]) for codec in (NINE, THOROUGH)]
        cells = [f"{value:.3f}" for one in figures for value in (one.size, one.cpu)]
        rows.append([f"{picture.name}, {picture.kind}", f"{best.size / 1000:.0f}", f"{best.cpu * 1000:.0f}", *cells])
    print_table(("picture", "Pillow 9: KB", "ms", "level 9: bytes", "CPU", "thorough: bytes", "CPU"), rows)


def print_lossy(kind: str, table: Table, to: str, names: list[str]) -> None:
    rows = []
    for codec, made in table.items():
        if codec.startswith(kind):
            against = ratio(table, codec, to, names)
            size = statistics.mean(made[name].size for name in names) / 1000
            cpu = statistics.mean(made[name].cpu for name in names) * 1000
            rows.append([codec, f"{size:.0f}", f"{cpu:.1f}", f"{against.size:.3f}", f"{against.cpu:.2f}"])
    print_table((kind, "KB", "ms", f"bytes to {to}", "CPU"), rows)


def main() -> None:
    pictures, missing = gather()
    for line in missing:
        print(f"Left out: {line}")
    drawn = drawings()
    table, rounds = measure(pictures + drawn)
    kinds = {kind: [one.name for one in pictures if one.kind == kind and not one.tuning] for kind in get_args(Kind)}
    tests = [name for names in kinds.values() for name in names]
    tuning = [one.name for one in pictures if one.tuning]
    print(f"{machine()}; {len(tests)} pictures of {SIZE[0]}x{SIZE[1]}, medians of {rounds} interleaved rounds.")
    print_levels(table, tests)
    groups = {f"{kind}s": names for kind, names in kinds.items()} | {"all of these": tests}
    groups |= {"those that levels were tuned on": tuning, "both": tests + tuning}
    groups["drawings under 20 KB"] = [one.name for one in drawn if table[BEST][one.name].size < SMALL]
    print_summary(table, {group: names for group, names in groups.items() if names})
    print_pictures(table, pictures)
    print_lossy("JPEG", table, "JPEG baseline", tests)
    print_lossy("WebP", table, "WebP method 4", tests)


if __name__ == "__main__":
    main()
