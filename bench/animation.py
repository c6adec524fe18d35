"""Animations beside Pillow and sharp: CPU, bytes, quality and memory: `python -m bench.animation`, ten minutes.

Scenes of 48 frames of 640 x 360, as lossless WebP, are exported in 320 x 180: by a worker's whole job (decode, compose,
resize, encode, write), by Pillow's own calls, and by sharp. Each run is a process of its own; rounds of all alternate.
"""

import io
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageChops, ImageDraw, ImageSequence, ImageStat

from bench import peers
from bench.pictures import gather
from bench.table import machine, median_ratio, print_table
from service.imaging.formats import AvifEncoding, Encoding, GifEncoding, PngEncoding, WebpEncoding
from service.imaging.frame import Frame
from service.imaging.plan import ExportJob, ExportOutcome, ExportPlan, WorkerLimits
from service.workers import worker

FRAMES, SOURCE, SIZE, DURATION = 48, (640, 360), (320, 180), 40
LANCZOS = Image.Resampling.LANCZOS
ROUNDS = 3
ENCODINGS: tuple[Encoding, ...] = (WebpEncoding(), AvifEncoding(), GifEncoding(), PngEncoding())
PIXELS = WorkerLimits().animation_pixels
SHARP = Path(__file__).with_name("sharp_animation.js")


class Run(NamedTuple):
    cpu: float
    size: int


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to make a file of one format out of a source."""

    name: str
    format: str
    run: Callable[[Path], Run]
    runs: dict[str, list[Run]] = field(default_factory=dict)

    def cpu(self, scene: str) -> list[float]:
        return [run.cpu for run in self.runs[scene]]

    def size(self, scene: str) -> int:
        return self.runs[scene][0].size


def panned(picture: Image.Image) -> list[Image.Image]:
    """A window that moves across a photograph: every pixel changes."""
    right, down = picture.width - SOURCE[0], picture.height - SOURCE[1]
    places = [(right * step // FRAMES, down * step // FRAMES // 2) for step in range(FRAMES)]
    return [picture.crop((x, y, x + SOURCE[0], y + SOURCE[1])) for x, y in places]


def rolled(picture: Image.Image) -> list[Image.Image]:
    """A ball that rolls over a still photograph."""
    still, frames = picture.resize(SOURCE), []
    for step in range(FRAMES):
        frame, left = still.copy(), (SOURCE[0] - 80) * step // FRAMES
        ball = (left, 200, left + 80, 280)
        draw = ImageDraw.Draw(frame)
        draw.ellipse(ball, (220, 40, 30))
        draw.pieslice(ball, step * 10, step * 10 + 90, (250, 220, 40))
        frames.append(frame)
    return frames


def write(frames: Sequence[Image.Image], path: Path) -> None:
    first, *others = frames
    first.save(path, "WEBP", save_all=True, append_images=others, duration=DURATION, lossless=True, method=0)


def by_worker(source: Path, encoding: Encoding) -> Run:
    """The CPU of the whole job, and the size of the file."""
    target = source.with_suffix(f".{encoding.format}.out")
    target.touch()
    plan = ExportPlan(Frame(*SIZE), animate="keep")
    before = time.process_time()
    outcome = worker.run(ExportJob(str(source), None, plan, ((encoding, str(target)),)))
    spent = time.process_time() - before
    if not isinstance(outcome, ExportOutcome) or not outcome.files:
        raise RuntimeError(str(outcome))
    return Run(spent, outcome.files[0].size)


def by_pillow(source: Path, encoding: WebpEncoding) -> Run:
    file = io.BytesIO()
    before = time.process_time()
    with Image.open(source) as image:
        first, *others = (frame.convert("RGB").resize(SIZE, LANCZOS) for frame in ImageSequence.Iterator(image))
    options = {"quality": encoding.quality, "method": encoding.method, "duration": DURATION}
    first.save(file, "WEBP", save_all=True, append_images=others, **options)
    return Run(time.process_time() - before, file.tell())


def by_sharp(tool: peers.Tool, name: str, source: Path) -> Run:
    command = [tool.path, str(SHARP), str(source), name, "{}"]
    answer = subprocess.run(command, env=tool.environment, capture_output=True, text=True, check=True)
    return Run(**json.loads(answer.stdout))


def in_process(call: Callable[..., Run], *arguments: object) -> Callable[[Path], Run]:
    """Run a call in a new process, which does it once before, to warm up."""

    def run(source: Path) -> Run:
        with ProcessPoolExecutor(1, get_context("spawn")) as executor:
            executor.submit(call, source, *arguments).result()
            return executor.submit(call, source, *arguments).result()

    return run


def contenders() -> list[Contender]:
    found = [Contender("**this service**", each.format, in_process(by_worker, each)) for each in ENCODINGS]
    found.append(Contender("Pillow", "webp", in_process(by_pillow, WebpEncoding())))
    try:
        tool = peers.sharp()
    except peers.MissingError as error:
        print(f"Left out: {error}")
        return found
    print(tool.version)
    return found + [Contender("sharp", name, partial(by_sharp, tool, name)) for name in ("webp", "gif")]


def psnr(source: Path, file: Path) -> float:
    """The mean over the frames of a file, of which none was merged."""
    with Image.open(source) as whole, Image.open(file) as made:
        originals = [frame.convert("RGB").resize(SIZE, LANCZOS) for frame in ImageSequence.Iterator(whole)]
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(made)]
    errors = []
    for original, frame in zip(originals, frames, strict=True):
        difference = ImageStat.Stat(ImageChops.difference(original, frame))
        errors.append(sum(difference.sum2) / sum(difference.count))
    return sum(10 * math.log10(255**2 / error) if error else math.inf for error in errors) / len(errors)


def peak(folder: Path, encoding: Encoding, picture: Image.Image) -> float:
    """The peak memory in MB of a worker's job of as many pixels as are allowed, less that of a worker without one."""
    count = PIXELS // (SIZE[0] * SIZE[1])
    source = folder / "long.webp"
    if not source.exists():
        right = picture.width - SIZE[0]
        frames = [picture.crop((x, 90, x + SIZE[0], 90 + SIZE[1])) for x in (step % right for step in range(count))]
        frames[0].save(source, "WEBP", save_all=True, append_images=frames[1:], duration=DURATION, method=0)
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        return executor.submit(_peak, source, encoding).result()


def _peak(source: Path, encoding: Encoding) -> float:
    before = _memory("VmRSS")
    by_worker(source, encoding)
    return _memory("VmHWM") - before


def _memory(name: str) -> float:
    """A line of /proc/self/status in MB; the peak that getrusage(2) tells begins with that of the parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{name}:"))


def measure(folder: Path) -> None:
    photographs = [picture for picture in gather()[0] if picture.kind == "photograph"]
    scenes = {f"pan over {picture.name}": panned(picture.image) for picture in photographs[:2]}
    scenes[f"ball over {photographs[0].name}"] = rolled(photographs[0].image)
    sources = {name: folder / f"{number}.webp" for number, name in enumerate(scenes)}
    for name, frames in scenes.items():
        write(frames, sources[name])
    everyone = contenders()
    for number in range(ROUNDS):
        for contender in everyone[:: -1 if number % 2 else 1]:
            for name, source in sources.items():
                contender.runs.setdefault(name, []).append(contender.run(source))
        print(f"round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)
    print(f"{machine()}; {ROUNDS} rounds")
    report(everyone, sources)
    rows = [(each.format, f"{peak(folder, each, photographs[0].image):.0f}") for each in ENCODINGS]
    print_table(
        (f"{PIXELS / 1e6:.0f} megapixels as", "peak MB"), [*rows, ("wanted, at most", f"{4 * PIXELS / 1e6 + 200:.0f}")]
    )


def report(everyone: Sequence[Contender], sources: dict[str, Path]) -> None:
    ours = {each.format: each for each in everyone[: len(ENCODINGS)]}
    rows = []
    for scene, source in sources.items():
        for each in everyone:
            mine = ours[each.format]
            file = source.with_suffix(f".{each.format}.out")
            rows.append(
                (
                    f"{scene}, {each.format}: {each.name}",
                    f"{each.size(scene) / 1000:.0f}",
                    f"{mine.size(scene) / each.size(scene):.2f}",
                    f"{sorted(each.cpu(scene))[ROUNDS // 2]:.2f}",
                    f"{median_ratio(mine.cpu(scene), each.cpu(scene)):.2f}",
                    f"{psnr(source, file):.1f}" if each is mine else "",
                )
            )
    print_table(("", "KB", "ours has", "CPU s", "ours takes", "PSNR dB"), rows)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder))


if __name__ == "__main__":
    main()
