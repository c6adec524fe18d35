"""The CPU that a focus and a mark of provenance add to a trio: PNG, JPEG and WebP of one picture, by codec calls alone.

All steps of a trio take turns on each picture, with an option and without. A step's CPU time on a picture is its median
over the rounds; shares are of sums of these. `python -m bench.options`, a minute.
"""

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from bench.bare import ENCODINGS
from bench.table import machine, print_table
from bench.workload import DRAWN, SIZE, Original, originals
from service.imaging.decode import decode
from service.imaging.encode import encode
from service.imaging.frame import Frame, Size
from service.imaging.pipeline import finish
from service.imaging.plan import ExportPlan, Focus, WorkerLimits
from service.imaging.probe import probe
from service.imaging.provenance import GENERATED, Mark

PICTURES = 12
ROUNDS = 9
SIZES = (SIZE, (720, 720))  # from pictures of DRAWN pixels, the second crops more and is smaller
POINT: Focus = (2_500, 7_500)

Steps = dict[str, Callable[[], object]]


def steps(picture: Original, size: Size) -> Steps:
    """The steps of a trio of one picture, each by itself, and those that an option changes once more with it."""
    container = probe(picture.data, WorkerLimits().pixels)
    decoded = decode(container)

    def normalize(focus: Focus) -> object:
        return finish(container, ExportPlan(Frame(*size), focus=focus), size, decoded=decoded)

    image, _ = finish(container, ExportPlan(Frame(*size)), size, decoded=decoded)

    def encode_all(mark: Mark | None) -> object:
        return [encode(image, each, ExportPlan().matte, mark) for each in ENCODINGS]

    return {
        "decode": lambda: decode(container),
        "normalize": lambda: normalize(None),
        "normalize, focus=x,y": lambda: normalize(POINT),
        "normalize, focus=auto": lambda: normalize("auto"),
        "encode": lambda: encode_all(None),
        "encode, marked": lambda: encode_all(GENERATED),
    }


def measure(pictures: Sequence[Original], size: Size) -> dict[str, float]:
    """The CPU seconds of each step, summed over the pictures."""
    named = [steps(picture, size) for picture in pictures]
    seconds: dict[tuple[int, str], list[float]] = defaultdict(list)
    for number in range(ROUNDS):
        for place, calls in enumerate(named):
            for name in list(calls)[:: -1 if number % 2 else 1]:
                start = time.process_time()
                calls[name]()
                seconds[place, name].append(time.process_time() - start)
        print(f"round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)
    sums: dict[str, float] = defaultdict(float)
    for (_, name), took in seconds.items():
        sums[name] += statistics.median(took)
    return sums


def main() -> None:
    pictures, missing = originals(PICTURES)
    for line in missing:
        print(f"Left out: {line}")
    rows = []
    for size in SIZES:
        sums = measure(pictures, size)
        trio = sums["decode"] + sums["normalize"] + sums["encode"]
        rows.append((f"a trio of {size[0]} x {size[1]}", f"{trio / len(pictures) * 1000:.1f}", "", ""))
        for step, option, most in (
            ("encode", "marked", "2.0 %"),
            ("normalize", "focus=x,y", "1.0 %"),
            ("normalize", "focus=auto", "3.0 %"),
        ):
            more = sums[f"{step}, {option}"] - sums[step]
            rows.append((f"{option} adds", f"{more / len(pictures) * 1000:.2f}", f"{more / trio:.1%}", most))
    print(f"{machine()}; {len(pictures)} pictures of {DRAWN[0]} x {DRAWN[1]}, {ROUNDS} rounds", end="")
    print_table(("", "CPU ms", "of the trio", "wanted, at most"), rows)


if __name__ == "__main__":
    main()
