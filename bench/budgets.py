"""Byte budgets: the encodes that a search takes, and how much of its budget a file fills: `python -m bench.budgets`.

Every budget is a share of what the picture takes in the default encoding of the format. Encodes are counted, not timed,
so the figures are the same on every machine. It takes two minutes.
"""

import multiprocessing
import os
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from PIL import Image

from bench.pictures import SIZE, gather
from bench.table import print_table
from service.imaging.encode import encode
from service.imaging.formats import TABLE, AvifEncoding, Encoding, Format, JpegEncoding, WebpEncoding, quality_of
from service.imaging.frame import Size
from service.imaging.plan import Budgets, ExportPlan, MadeFile
from service.workers.clock import CpuClock
from service.workers.files import FileMaker

ENCODINGS: tuple[Encoding, ...] = (JpegEncoding(), WebpEncoding(), AvifEncoding())
# Shares of the size of the file as asked. Where fewer pixels are allowed, the budgets are so small that most need them.
SHARES = (1.0, 0.9, 0.75, 0.6, 0.45, 0.3, 0.18)
RESIZED_SHARES = (0.2, 0.08, 0.03)
CPU_SECONDS = 600  # no search ends early


@dataclass(frozen=True, slots=True)
class Case:
    """A budget and the file that was made, if any fits; with the encodes of the whole picture and of smaller ones.

    asked  the bytes of the file as asked
    """

    encoding: Encoding
    asked: int
    budget: int
    may_resize: bool
    file: MadeFile | None
    whole: int
    smaller: int

    @property
    def lowered(self) -> bool:
        """Whether the file has a lower quality than was asked for."""
        return self.file is not None and self.file.quality != quality_of(self.encoding)

    @property
    def filled(self) -> float:
        return self.file.size / self.budget if self.file else 0


class CountingMaker(FileMaker):
    """Makes files as a worker does, and counts the encodes by format and size in pixels."""

    def __init__(self, image: Image.Image, plan: ExportPlan) -> None:
        super().__init__([image], plan, CpuClock(CPU_SECONDS))
        self.encodes: Counter[tuple[Format, Size]] = Counter()

    def _encode(self, image: Image.Image, encoding: Encoding) -> bytes:
        self.encodes[encoding.format, image.size] += 1
        return super()._encode(image, encoding)


def cases_of(image: Image.Image) -> list[Case]:
    """All cases of one picture."""
    sizes = {each.format: len(encode(image, each, ExportPlan().matte)) for each in ENCODINGS}
    asked = [(share, False) for share in SHARES] + [(share, True) for share in RESIZED_SHARES]
    return list(chain.from_iterable(_cases(image, sizes, *each) for each in asked))


def _cases(image: Image.Image, sizes: dict[Format, int], share: float, may_resize: bool) -> list[Case]:
    budgets = {name: int(share * size) for name, size in sizes.items()}
    maker = CountingMaker(image, ExportPlan(budgets=Budgets(each=tuple(budgets.items()), may_resize=may_resize)))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        targets = [(each, f"{folder}/{each.format}") for each in ENCODINGS]
        for _, path in targets:
            Path(path).touch()
        files = {made.format: made for made in maker.make(targets) if isinstance(made, MadeFile)}
    found = []
    for encoding in ENCODINGS:
        name = encoding.format
        whole = maker.encodes[name, image.size]
        smaller = sum(count for (each, _), count in maker.encodes.items() if each == name) - whole
        found.append(Case(encoding, sizes[name], budgets[name], may_resize, files.get(name), whole, smaller))
    return found


def by_format(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """The cases by the labels of their formats; and all of them."""
    groups = {TABLE[each.format].label: [case for case in cases if case.encoding == each] for each in ENCODINGS}
    return groups | {"all": list(cases)}


def counted(encodes: Sequence[int]) -> tuple[str, str]:
    return f"{statistics.mean(encodes):.2f}", f"{max(encodes)}"


def filled(cases: Sequence[Case]) -> tuple[str, str]:
    shares = [case.filled for case in cases]
    return f"{statistics.mean(shares):.3f}", f"{min(shares):.3f}"


def unmet(cases: Sequence[Case]) -> str:
    return f"{sum(case.file is None for case in cases)}"


def print_lowered(cases: Sequence[Case]) -> None:
    """Budgets that the file as asked exceeds, and those that it meets."""
    over = [case for case in cases if case.budget < case.asked]
    rows = []
    for name, group in by_format(over).items():
        share = filled([case for case in group if case.lowered])
        rows.append((name, f"{len(group)}", *counted([case.whole for case in group]), *share, unmet(group)))
    rows.append(("wanted", "", "at most 4", "at most 8", "at least 0.95", "", ""))
    met = [case for case in cases if case.budget >= case.asked]
    rows.append(("the file as asked fits", f"{len(met)}", *counted([case.whole for case in met]), "", "", unmet(met)))
    print_table(("", "budgets", "encodes: mean", "most", "filled: mean", "least", "nothing fits"), rows)


def print_resized(cases: Sequence[Case]) -> None:
    rows = []
    for name, group in by_format(cases).items():
        smaller = [case for case in group if case.smaller]
        encodes = counted([case.whole for case in group]), counted([case.smaller for case in smaller])
        share = filled([case for case in smaller if case.file])
        rows.append((name, f"{len(group)}", *encodes[0], f"{len(smaller)}", *encodes[1], *share, unmet(group)))
    rows.append(("wanted", "", "", "at most 8", "", "", "at most 8", "", "", ""))
    heads = ("encodes: mean", "most", "made smaller", "further encodes: mean", "most", "filled: mean", "least")
    print_table(("with `allow_resize`", "budgets", *heads, "nothing fits"), rows)


def main() -> None:
    pictures, missing = gather()
    for line in missing:
        print(f"Left out: {line}")
    images = [picture.image for picture in pictures]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), multiprocessing.get_context("spawn")) as executor:
        cases = list(chain.from_iterable(executor.map(cases_of, images)))
    print(f"{len(images)} pictures of {SIZE[0]} x {SIZE[1]}, {len(cases)} budgets", end="")
    print_lowered([case for case in cases if not case.may_resize])
    print_resized([case for case in cases if case.may_resize])


if __name__ == "__main__":
    main()
