"""The files of an export: their byte budgets, and what they say of themselves."""

import hashlib
import random
import statistics
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from service.imaging.encode import encode
from service.imaging.formats import (
    AvifEncoding,
    Encoding,
    Format,
    GifEncoding,
    JpegEncoding,
    PngEncoding,
    WebpEncoding,
    at_quality,
    quality_of,
)
from service.imaging.plan import Budgets, ExportOutcome, ExportPlan, ExportWarning, MadeFile, WorkerLimits
from service.workers import files, worker
from service.workers.clock import CpuClock
from service.workers.files import FileMaker, Made
from tests.imaging import pictures, variety
from tests.imaging.workbench import Bench

WHITE = (255, 255, 255)
EVERY: tuple[Encoding, ...] = (PngEncoding(compression=6), JpegEncoding(), WebpEncoding(), AvifEncoding())
LONG = 3_600.0


@pytest.fixture
def encodes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Format, int | None]]:
    """The format and quality of each encode, as it happens."""
    seen: list[tuple[Format, int | None]] = []

    def noted(image: Image.Image, encoding: Encoding, *rest: object) -> bytes:
        seen.append((encoding.format, quality_of(encoding)))
        return encode(image, encoding, *rest)  # type: ignore[arg-type]  # passed on as they are

    monkeypatch.setattr(files, "encode", noted)
    return seen


def grainy() -> Image.Image:
    size = (200, 120)
    grain = Image.frombytes("RGB", size, random.Random(3).randbytes(3 * size[0] * size[1]))
    return Image.blend(pictures.image().resize(size), grain, 0.3)


def made_with(
    folder: Path, image: Image.Image, budgets: Budgets, encodings: tuple[Encoding, ...] = EVERY, seconds: float = LONG
) -> list[Made]:
    targets = [(encoding, str(folder / encoding.format)) for encoding in encodings]
    for _, path in targets:
        Path(path).write_bytes(b"")
    return FileMaker([image], ExportPlan(budgets=budgets), CpuClock(seconds)).make(targets)


def test_each_file_is_within_its_budget_and_says_how_it_was_encoded(tmp_path: Path) -> None:
    image = grainy()
    budgets = Budgets(any=7_000, each=(("png", 20_000), ("webp", 1_000_000)))
    png, jpeg, webp, avif = made_with(tmp_path, image, budgets)
    for made in (png, jpeg, webp, avif):
        assert isinstance(made, MadeFile)
        data = (tmp_path / made.format).read_bytes()
        assert (made.size, made.sha256, made.pixels) == (len(data), hashlib.sha256(data).hexdigest(), image.size)
        assert made.size <= (budgets.of(made.format) or made).bytes  # type: ignore[union-attr]  # it has one
    assert isinstance(png, MadeFile)
    assert (png.colors, png.quality) == (128, None)
    assert isinstance(webp, MadeFile)
    assert (webp.colors, webp.quality) == (None, 80)
    assert (tmp_path / "webp").read_bytes() == encode(image, WebpEncoding(), WHITE)
    for made, encoding in ((jpeg, JpegEncoding()), (avif, AvifEncoding())):
        assert isinstance(made, MadeFile)
        assert made.quality is not None
        assert (tmp_path / made.format).read_bytes() == encode(image, at_quality(encoding, made.quality), WHITE)


def test_a_gif_is_within_its_budget_by_its_size_alone(tmp_path: Path) -> None:
    image, most = grainy(), 9_000
    [as_asked] = made_with(tmp_path, image, Budgets(any=1_000_000), (GifEncoding(),))
    [warning] = made_with(tmp_path, image, Budgets(any=most), (GifEncoding(),))
    [smaller] = made_with(tmp_path, image, Budgets(any=most, may_resize=True), (GifEncoding(),))
    assert isinstance(as_asked, MadeFile)
    assert isinstance(smaller, MadeFile)
    detail = f"the GIF takes at least {as_asked.size} bytes; {most} are allowed"
    assert warning == ExportWarning("over_budget", detail, "gif")
    assert 0.8 * most <= smaller.size <= most
    width, height = smaller.pixels
    assert height < image.height
    assert width * image.height == pytest.approx(height * image.width, abs=image.width)
    assert (smaller.quality, smaller.colors, smaller.frames) == (None, None, 1)
    assert (tmp_path / "gif").stat().st_size == smaller.size


def test_a_budget_that_nothing_meets_leaves_the_format_out_and_names_the_smallest_size(bench: Bench) -> None:
    encodings = (PngEncoding(), JpegEncoding(), WebpEncoding(), AvifEncoding())
    budgets = Budgets(each=(("png", 900), ("webp", 30), ("avif", 20)))
    outcome = bench.run(pictures.saved(grainy(), "PNG"), ExportPlan(budgets=budgets), None, encodings)
    assert isinstance(outcome, ExportOutcome)
    assert [file.format for file in outcome.files] == ["jpeg"]
    least = len(encode(grainy(), PngEncoding(colors=16), WHITE))
    assert outcome.warnings[0] == ExportWarning(
        "over_budget", f"the PNG takes at least {least} bytes; 900 are allowed", "png"
    )
    assert [warning.detail.partition(" takes at least ")[0] for warning in outcome.warnings] == [
        "the PNG",
        "the WEBP",
        "the AVIF",
    ]
    assert bench.made("png") == bench.made("webp") == b""


def test_searches_start_when_every_format_was_encoded_once(
    tmp_path: Path, encodes: list[tuple[Format, int | None]]
) -> None:
    made = made_with(tmp_path, grainy(), Budgets(any=7_000, each=(("png", 20_000),)))
    assert encodes[:4] == [("png", None), ("jpeg", 85), ("webp", 80), ("avif", 58)]
    assert [each.format for each in made if isinstance(each, MadeFile)] == ["png", "jpeg", "webp", "avif"]


def test_a_format_that_fits_is_encoded_once(tmp_path: Path, encodes: list[tuple[Format, int | None]]) -> None:
    made_with(tmp_path, grainy(), Budgets(any=1_000_000, may_resize=True))
    assert len(encodes) == 4


def test_past_half_of_the_time_nothing_is_searched(tmp_path: Path, encodes: list[tuple[Format, int | None]]) -> None:
    image = grainy()
    made = made_with(tmp_path, image, Budgets(any=7_000, may_resize=True), seconds=1e-9)
    asked = [len(encode(image, encoding, WHITE)) for encoding in EVERY]
    assert len(encodes) == 4
    assert [each.detail for each in made if isinstance(each, ExportWarning)] == [
        f"the {encoding.format.upper()} takes at least {size} bytes; 7000 are allowed"
        for encoding, size in zip(EVERY, asked, strict=True)
    ]


def test_the_worker_searches_for_half_of_its_limit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, picture = ExportPlan(budgets=Budgets(any=7_000)), pictures.saved(grainy(), "PNG")
    assert len(bench.export(picture, plan, encodings=EVERY[1:]).files) == 3
    monkeypatch.setattr(worker, "_limits", WorkerLimits(cpu_seconds=1e-9))
    outcome = bench.run(picture, plan, encodings=EVERY[1:])
    assert isinstance(outcome, ExportOutcome)
    assert [warning.code for warning in outcome.warnings] == ["over_budget"] * 3


def test_it_is_late_past_half_of_the_limit_and_when_one_more_encode_might_reach_it() -> None:
    assert CpuClock(1e-9).late(0)
    assert not CpuClock(LONG).late(0)
    assert not CpuClock(LONG).late(LONG - 60)
    assert CpuClock(LONG).late(LONG + 1)


def failing(monkeypatch: pytest.MonkeyPatch, at: int, fault: Exception) -> None:
    """Let the encode with this number fail, from 0 on."""
    calls = iter(range(1_000))

    def hungry(*rest: object) -> bytes:
        if next(calls) == at:
            raise fault
        return encode(*rest)  # type: ignore[arg-type]  # passed on as they are

    monkeypatch.setattr(files, "encode", hungry)


def test_a_search_that_fails_without_a_file_leaves_the_format_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, 2, MemoryError())
    made = made_with(tmp_path, grainy(), Budgets(each=(("png", 7_000),)), EVERY[:2])
    assert made[0] == ExportWarning("encode_failed", "the PNG could not be encoded (MemoryError)", "png")
    assert isinstance(made[1], MadeFile)


def test_a_search_that_fails_with_a_file_keeps_it_and_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, most = grainy(), len(encode(grainy(), JpegEncoding(20), WHITE))
    budgets = Budgets(any=most)
    [best] = made_with(tmp_path, image, budgets, (JpegEncoding(100),))
    for at in range(2, 8):
        failing(monkeypatch, at, RuntimeError("a bug"))
        made = made_with(tmp_path, image, budgets, (JpegEncoding(100),))
        if len(made) == 2:
            break
    file, warning = made
    assert isinstance(file, MadeFile)
    assert file.size == len((tmp_path / "jpeg").read_bytes()) <= most
    assert isinstance(warning, ExportWarning)
    assert (warning.code, warning.format) == ("encode_failed", "jpeg")
    assert "(RuntimeError)" in warning.detail
    assert isinstance(best, MadeFile)


# -- many pictures -----------------------------------------------------------------------------------------------------

SHARES = (0.97, 0.8, 0.6, 0.45, 0.3, 0.15)
# Of each format some encodings.
MANY: tuple[tuple[Encoding, ...], ...] = (
    (PngEncoding(compression=6), PngEncoding(compression=1, palette=True)),
    (JpegEncoding(), JpegEncoding(75), JpegEncoding(95, progressive=True, subsampling="4:4:4")),
    (WebpEncoding(), WebpEncoding(60), WebpEncoding(95, method=0), WebpEncoding(lossless=True)),
    (AvifEncoding(), AvifEncoding(80)),
)


class Tally:
    """What became of the cases: their encodes in each stage, and how much of the budgets was used."""

    def __init__(self) -> None:
        self.ends: Counter[str] = Counter()
        self.encodes: list[int] = []
        self.filled: list[float] = []
        self.resized: list[float] = []
        self.spent = 0

    def __str__(self) -> str:
        return (
            f"{dict(self.ends)}; lossy formats: {statistics.mean(self.encodes):.2f} encodes in both stages, at most "
            f"{max(self.encodes)}; {statistics.mean(self.filled):.3f} of the budget by quality, "
            f"{statistics.mean(self.resized):.3f} by size; {self.spent} spent"
        )


class Case:
    """One picture, format and budget, and the encodes of its search: (pixels, quality, bytes)."""

    def __init__(self, image: Image.Image, encoding: Encoding, budgets: Budgets, path: Path) -> None:
        self.image = image
        self.encoding = encoding
        self.tried: list[tuple[tuple[int, int], int | None, int]] = []
        budget = budgets.of(encoding.format)
        assert budget
        self.most, self.may_resize = budget.bytes, budget.may_resize
        path.write_bytes(b"")
        maker = FileMaker([image], ExportPlan(alpha="keep", budgets=budgets), CpuClock(LONG))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "encode", self._encode)
            [self.made] = maker.make([(encoding, str(path))])
        self.data = path.read_bytes()

    def _encode(self, image: Image.Image, encoding: Encoding, *rest: object) -> bytes:
        data = encode(image, encoding, *rest)  # type: ignore[arg-type]  # passed on as they are
        self.tried.append((image.size, quality_of(encoding), len(data)))
        return data

    def check(self, tally: Tally) -> None:
        full = [each for each in self.tried if each[0] == self.image.size]
        smaller = len(self.tried) - len(full)
        assert len(full) <= 8
        assert smaller <= 8
        assert self.tried == full + self.tried[len(full) :]
        if quality_of(self.encoding) is not None:
            tally.encodes.append(len(self.tried))
        if isinstance(self.made, ExportWarning):
            assert self.data == b""
            least = min(size for *_, size in self.tried)
            assert self.made.detail.endswith(f" takes at least {least} bytes; {self.most} are allowed")
            assert least > self.most
            tally.ends["none"] += 1
        else:
            self._check_file(self.made, tally)

    def _check_file(self, made: MadeFile, tally: Tally) -> None:
        """The file is what it says, and no larger than its budget."""
        assert made.size == len(self.data) <= self.most
        with Image.open(BytesIO(self.data)) as opened:
            assert made.pixels == opened.size
            opened.load()
            if made.colors:
                assert opened.mode == "P"
                assert len(opened.getcolors(256) or ()) <= made.colors
            elif quality_of(self.encoding) is None and made.pixels == self.image.size:
                assert opened.convert(self.image.mode).tobytes() == self.image.tobytes()
        if made.pixels == self.image.size and made.quality is not None:
            assert self.data == encode(self.image, at_quality(self.encoding, made.quality), WHITE)
        end = "size" if made.pixels != self.image.size else "asked" if len(self.tried) == 1 else "quality"
        tally.ends["palette" if end == "quality" and made.colors else end] += 1
        share = made.size / self.most
        if end == "quality" and not made.colors:
            tally.filled.append(share)
            tally.spent += share < 0.9 and not self._exceeded(made.pixels, (made.quality or 0) + 1)
        elif end == "size":
            tally.resized.append(share)
            tally.spent += share < 0.8 and not self._exceeded_side(max(made.pixels) + 1)

    def _exceeded(self, pixels: tuple[int, int], quality: int) -> bool:
        return any(each[:2] == (pixels, quality) and each[2] > self.most for each in self.tried)

    def _exceeded_side(self, longest: int) -> bool:
        return any(max(each[0]) == longest and each[2] > self.most for each in self.tried)


def cases(seeds: range, path: Path) -> Iterator[Case]:
    """A picture for each seed in every format, each with a budget, with and without leave to be made smaller."""
    for seed in seeds:
        chance, image = random.Random(seed), variety.picture(seed)
        for encoding in map(chance.choice, MANY):
            asked = len(encode(image, encoding, WHITE))
            most = max(1, int(asked * chance.choice(SHARES) * chance.uniform(0.9, 1.1)))
            for may_resize in (False, True):
                yield Case(image, encoding, Budgets(any=most, may_resize=may_resize), path)


@pytest.mark.parametrize(
    "seeds",
    # A thousand pictures, in parts that run at the same time.
    [range(15), *(pytest.param(range(start, start + 250), marks=pytest.mark.slow) for start in range(0, 1000, 250))],
    ids=lambda seeds: f"{seeds.start}-{seeds.stop}",
)
def test_no_file_exceeds_its_budget_and_each_is_what_it_says(seeds: range, tmp_path: Path) -> None:
    tally = Tally()
    for case in cases(seeds, tmp_path / "file"):
        case.check(tally)
    print(tally)
    assert tally.ends.total() == 2 * len(seeds) * len(MANY)
    assert statistics.mean(tally.encodes) <= 4
    assert statistics.mean(tally.filled) >= 0.95
    assert tally.spent <= tally.ends.total() / 100
