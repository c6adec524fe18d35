"""AVIF beside WebP, Pillow and sharp: CPU and bytes of the encode step, and how close its files are to the pictures.

The encode step is what a format adds: exports as JPEG and that format, less exports as JPEG alone. Rounds of all
contenders alternate, and ratios are medians over rounds. No picture is resized. `python -m bench.avif`, seven minutes.
"""

import asyncio
import functools
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import aiohttp

from bench import bare, peers
from bench.pictures import Kind, Picture, gather
from bench.processes import Server, service
from bench.service import open_contenders
from bench.similarity import scores
from bench.table import machine, median_ratio, print_table
from bench.trios import BareCalls, Contender, Contenders, Export, answered, by_service, by_sharp, total_size
from bench.workload import SIZE, Original, png_bytes
from service.imaging.encode import encode
from service.imaging.formats import AvifEncoding, WebpEncoding
from service.imaging.plan import ExportPlan

ROUNDS = 3
ROUND_SECONDS = 2.0

DEFAULT = AvifEncoding()
WEBP = f"WebP of this service, quality {WebpEncoding().quality}"
AVIF = f"**AVIF of this service**, quality {DEFAULT.quality}, speed {DEFAULT.speed}"
PILLOW = "AVIF of Pillow's bare call, the same"
PILLOW_OPTIONS: Mapping[str, object] = {
    "quality": DEFAULT.quality,
    "speed": DEFAULT.speed,
    "subsampling": "4:4:4",
    "range": "full",
    "max_threads": 1,
}
SHARP = "AVIF of sharp, its default: quality 50, effort 4"
SHARP_FAST = f"AVIF of sharp, quality {DEFAULT.quality}, effort 0"


@dataclass(frozen=True, slots=True)
class Step:
    """The encode step of one format: the exports of `both` less those of `jpeg`; `files` by the names of pictures."""

    name: str
    both: Contender
    jpeg: Contender | None = None
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def cpu(self) -> list[float]:
        """CPU seconds for a picture, by round."""
        whole = [run.cpu_per_trio for run in self.both.rounds]
        rest = [run.cpu_per_trio for run in self.jpeg.rounds] if self.jpeg else [0.0] * len(whole)
        return [one - other for one, other in zip(whole, rest, strict=True)]

    @property
    def kb(self) -> float:
        """Of one file: it is the same in every round."""
        return self.both.rounds[0].kb - (self.jpeg.rounds[0].kb if self.jpeg else 0)


def add_service(contenders: Contenders) -> list[Step]:
    server = contenders.stack.enter_context(service(contenders.folder))

    def exports(formats: str) -> Contender:
        return contenders.add(formats, server, by_service(contenders.session, server, False, formats=formats))

    jpeg = exports("jpeg")
    return [Step(WEBP, exports("jpeg,webp"), jpeg), Step(AVIF, exports("jpeg,avif"), jpeg)]


def add_pillow(contenders: Contenders) -> list[Step]:
    call = functools.partial(bare.save, kind="AVIF", options=PILLOW_OPTIONS)
    return [Step(PILLOW, contenders.add_calls(PILLOW, BareCalls(contenders.executor(), call)))]


def add_sharp(contenders: Contenders) -> list[Step]:
    tool = peers.sharp()
    print(tool.version)
    jpeg = {"quality": 85}
    alone = contenders.serve_sharp(tool, jpeg=jpeg)
    rest = contenders.add("sharp: jpeg", alone, by_sharp(contenders.session, alone))
    steps = []
    for name, options in ((SHARP, {}), (SHARP_FAST, {"quality": DEFAULT.quality, "effort": 0})):
        server = contenders.serve_sharp(tool, jpeg=jpeg, avif=options)
        files: dict[str, Path] = {}
        export = _remembering(contenders.session, server, files)
        steps.append(Step(name, contenders.add(name, server, export), rest, files))
    return steps


def _remembering(session: aiohttp.ClientSession, server: Server, files: dict[str, Path]) -> Export:
    async def export(picture: Original, base: Original) -> int:
        exports = (await answered(session, server.url, picture.data, "image/png"))["exports"]
        files[picture.name] = Path(exports["avif"]["file_path"])
        return total_size(exports)

    return export


def add_all(contenders: Contenders) -> list[Step]:
    steps: list[Step] = []
    adds: Sequence[Callable[[Contenders], list[Step]]] = (add_service, add_pillow, add_sharp)
    for add in adds:
        try:
            steps += add(contenders)
        except peers.MissingError as error:
            print(f"Left out: {error}")
    return steps


async def run_rounds(contenders: Sequence[Contender], pictures: Sequence[Original]) -> None:
    for contender in contenders:
        await contender.export(pictures[0], pictures[0])
    for number in range(ROUNDS):
        for contender in contenders[:: -1 if number % 2 else 1]:
            await contender.run(pictures, ROUND_SECONDS)
        print(f"round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)


# The paths of files by the names of pictures, of originals, and of what each encoder made.
Files = dict[str, dict[str, Path]]
ORIGINALS = "originals"


def encode_all(pictures: Sequence[Picture], folder: Path) -> Files:
    """The originals, and our files in the default encodings: the same bytes as the service's."""
    made: Files = {ORIGINALS: {}, WEBP: {}, AVIF: {}}
    for number, picture in enumerate(pictures):
        files = {ORIGINALS: png_bytes(picture.image)}
        for name, encoding in ((WEBP, WebpEncoding()), (AVIF, DEFAULT)):
            files[name] = encode(picture.image, encoding, ExportPlan().matte)
        for place, (name, data) in enumerate(files.items()):
            path = folder / f"bench-{number}-{place}"
            path.write_bytes(data)
            made[name][picture.name] = path
    return made


Scores = Mapping[str, Mapping[str, float]]


def score_all(files: Files) -> Scores:
    """The scores of all files but the originals, by encoder and picture; none if the measure cannot be installed."""
    try:
        tool = peers.ssimulacra2()
    except peers.MissingError as error:
        print(f"Left out: {error}")
        return {}
    print(tool.version)
    found: dict[str, dict[str, float]] = {}
    for encoder, paths in files.items():
        if encoder != ORIGINALS:
            pairs = [(files[ORIGINALS][name], path) for name, path in paths.items()]
            found[encoder] = dict(zip(paths, scores(tool, pairs), strict=True))
            print(f"{encoder} is scored", file=sys.stderr, flush=True)
    return found


def mean_score(found: Scores, encoder: str, names: Sequence[str]) -> float | None:
    return statistics.mean(found[encoder][name] for name in names) if encoder in found else None


def shown(score: float | None) -> str:
    return "" if score is None else f"{score:.1f}"


def print_steps(steps: Sequence[Step], found: Scores, names: Sequence[str]) -> None:
    avif = next(step for step in steps if step.name == AVIF)
    rows = [
        (
            step.name,
            f"{statistics.median(step.cpu) * 1000:.0f}",
            f"{median_ratio(avif.cpu, step.cpu):.3f}",
            f"{step.kb:.1f}",
            f"{avif.kb / step.kb:.3f}",
            shown(mean_score(found, step.name, names)),
        )
        for step in steps
    ]
    print_table(("", "CPU ms", "our AVIF takes", "KB", "our AVIF has", "mean ssimulacra2"), rows)


def print_kinds(files: Files, found: Scores, kinds: Mapping[str, Sequence[str]]) -> None:
    rows = []
    for kind, names in kinds.items():
        webp, avif = (sum(files[each][name].stat().st_size for name in names) for each in (WEBP, AVIF))
        means = [mean_score(found, each, names) for each in (WEBP, AVIF)]
        sizes = (f"{each / len(names) / 1000:.1f}" for each in (webp, avif))
        rows.append((kind, f"{len(names)}", *sizes, f"{avif / webp:.3f}", *map(shown, means)))
    heads = ("pictures", "WebP: KB", "AVIF: KB", "AVIF to WebP", "WebP: ssimulacra2", "AVIF: ssimulacra2")
    print_table(("", *heads), rows)


def print_goals(steps: Sequence[Step], files: Files, found: Scores) -> None:
    names = list(files[ORIGINALS])
    by_name = {step.name: step for step in steps}
    rows = [
        (f"CPU of our AVIF to {peer}", f"{median_ratio(by_name[AVIF].cpu, by_name[peer].cpu):.3f}", f"{most:.3f}")
        for peer, most in ((WEBP, 2.2), (PILLOW, 1.1), (SHARP, 1 / 15))
        if peer in by_name
    ]
    webp, avif = (sum(path.stat().st_size for path in files[each].values()) for each in (WEBP, AVIF))
    rows.append((f"bytes of our AVIF to WebP, {len(names)} pictures", f"{avif / webp:.3f}", "0.850"))
    means = [mean_score(found, each, names) for each in (WEBP, AVIF)]
    if means[0] is not None and means[1] is not None:
        rows.append(("mean ssimulacra2 of WebP less that of our AVIF", f"{means[0] - means[1]:.2f}", "1.00"))
    print_table(("", "measured", "wanted, at most"), rows)


async def measure(pictures: Sequence[Picture]) -> None:
    tests = [picture for picture in pictures if not picture.tuning]
    async with open_contenders() as contenders:
        steps = add_all(contenders)
        await run_rounds(contenders.all, [Original(one.name, png_bytes(one.image)) for one in tests])
        files = encode_all(pictures, contenders.folder)
        found = score_all(files | {step.name: step.files for step in steps if step.files})
        print(f"{machine()}; {len(tests)} pictures of {SIZE[0]} x {SIZE[1]}, {ROUNDS} rounds", end="")
        print_steps(steps, found, [one.name for one in tests])
        kinds = {f"{kind}s": [one.name for one in pictures if one.kind == kind] for kind in get_args(Kind)}
        print_kinds(
            files, found, {kind: names for kind, names in kinds.items() if names} | {"all": list(files[ORIGINALS])}
        )
        print_goals(steps, files, found)


def main() -> None:
    pictures, missing = gather()
    for line in missing:
        print(f"Left out: {line}")
    asyncio.run(measure(pictures))


if __name__ == "__main__":
    main()
