"""The code of a worker process, called in this process, in a pool, and with little memory."""

import hashlib
import os
import pickle
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from PIL import Image

from service.imaging.errors import Fault, ImagingError, TooCostly, TooManyPixels, Undecodable, UnsupportedType
from service.imaging.formats import MAX_AVIF_SIDE, AvifEncoding, JpegEncoding, PngEncoding, WebpEncoding
from service.imaging.frame import Frame
from service.imaging.plan import (
    ExportJob,
    ExportOutcome,
    ExportPlan,
    ExportWarning,
    Focus,
    InspectJob,
    Outcome,
    Picture,
    WorkerLimits,
)
from service.workers import worker
from service.workers.clock import CpuClock
from service.workers.files import FileMaker
from service.workers.memory import avif_bytes
from tests.imaging import pictures
from tests.imaging.pictures import RGB
from tests.imaging.workbench import TRIO, Bench

MEBIBYTE = 1024 * 1024


def test_one_job_makes_every_format(bench: Bench) -> None:
    plan = ExportPlan(Frame(width=48, height=48), share=5_000)
    outcome = bench.export(pictures.jpeg(orientation=6), plan, base=pictures.webp())
    assert (outcome.picture, outcome.size) == (Picture(64, 96, "jpeg"), (48, 48))
    assert outcome.composited
    assert outcome.warnings == ()
    for file in outcome.files:
        data = bench.made(file.format)
        assert (file.size, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert bench.image(file.format).size == (48, 48)


def test_a_file_is_filled_in_place(bench: Bench) -> None:
    job = bench.job(pictures.jpeg(), encodings=(PngEncoding(),))
    target = Path(job.targets[0][1])
    target.write_bytes(b"x" * 1_000_000)
    before = target.stat().st_ino
    assert isinstance(worker.run(job), ExportOutcome)
    assert target.stat().st_ino == before
    assert target.stat().st_size < 1_000_000


def test_inspecting_returns_the_upright_size_and_true_format(bench: Bench) -> None:
    source = bench.folder / "renamed.png"
    source.write_bytes(pictures.webp(orientation=8))
    assert worker.run(InspectJob(str(source))) == Picture(64, 96, "webp")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", UnsupportedType),
        (b"hello", UnsupportedType),
        (pictures.jpeg()[:900], Undecodable),
        (pictures.png(8, RGB)[:-40], Undecodable),
        (pictures.webp()[:400], Undecodable),
        (b"\xff\xd8\xff\xd9", Undecodable),
        (b"\x89PNG\r\n\x1a\n", Undecodable),
        (b"RIFF\x04\0\0\0WEBP", Undecodable),
        (pictures.png(8, RGB, size=(1, 1))[:16] + b"\0\0\xc3\x50" * 2 + bytes(20), TooManyPixels),
    ],
)
def test_a_bad_picture_is_returned_as_a_value(bench: Bench, data: bytes, kind: type[ImagingError]) -> None:
    refusal = bench.run(data)
    assert type(refusal) is kind
    assert str(bench.folder) not in str(refusal)


def test_inspecting_decodes_nothing(bench: Bench) -> None:
    source = bench.folder / "cut.jpg"
    source.write_bytes(pictures.jpeg()[:-200])
    assert isinstance(worker.run(InspectJob(str(source))), Picture)


def test_a_bug_is_returned_as_a_value_with_its_cause(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(worker, "finish", mistaken)
    fault = pickle.loads(pickle.dumps(bench.run(pictures.jpeg())))
    assert isinstance(fault, Fault)
    assert (fault.code, fault.detail) == ("undecodable", "the picture cannot be used (ZeroDivisionError)")
    assert "in mistaken" in fault.__notes__[0]
    assert "ZeroDivisionError: of ours" in fault.__notes__[0]


def test_a_missing_picture_is_returned_as_a_value_without_its_path(tmp_path: Path) -> None:
    refusal = worker.run(InspectJob(str(tmp_path / "absent")))
    assert isinstance(refusal, Undecodable)
    assert str(tmp_path) not in refusal.detail


@pytest.mark.parametrize("base", [b"", b"rubbish", pictures.jpeg()[:700]])
def test_without_a_usable_base_the_picture_is_exported_alone(bench: Bench, base: bytes) -> None:
    outcome = bench.export(pictures.png(8, RGB), base=base)
    assert not outcome.composited
    assert [warning.code for warning in outcome.warnings] == ["composite_failed"]
    assert bench.image().tobytes() == pictures.image().tobytes()


@pytest.mark.parametrize("focus", [(10_000, 0), "auto"])
def test_a_base_is_cropped_at_its_centre_wherever_the_focus_is(bench: Bench, focus: Focus) -> None:
    spotted = Image.new("RGB", (300, 100), "red")
    spotted.paste("blue", (260, 40, 280, 60))
    picture, base = (pictures.saved(image, "PNG") for image in (Image.new("RGB", (300, 100), "red"), spotted))
    size, encodings = Frame(100, 100), (PngEncoding(),)
    bench.export(picture, ExportPlan(size, focus=focus), base, encodings)
    assert bench.image().getcolors() == [(10_000, (255, 0, 0))]
    bench.export(base, ExportPlan(size, focus=focus), picture, encodings)
    assert len(bench.image().getcolors() or ()) > 1


def test_a_missing_base_is_named_without_its_path(bench: Bench) -> None:
    job = bench.job(pictures.jpeg(), base=pictures.jpeg())
    (bench.folder / "base").unlink()
    outcome = worker.run(job)
    assert isinstance(outcome, ExportOutcome)
    assert [warning.code for warning in outcome.warnings] == ["composite_failed"]
    assert str(bench.folder) not in outcome.warnings[0].detail


def test_a_format_that_cannot_be_encoded_leaves_the_others(bench: Bench) -> None:
    wide = pictures.saved(Image.new("RGB", (16_384, 1)), "PNG")
    outcome = bench.run(wide)
    assert isinstance(outcome, ExportOutcome)
    assert [file.format for file in outcome.files] == ["png", "jpeg"]
    assert [(warning.code, warning.format) for warning in outcome.warnings] == [("encode_failed", "webp")]
    assert bench.made("webp") == b""


@pytest.mark.parametrize(
    ("size", "detail"),
    [
        ((4097, 4096), "the AVIF would have 16781312 pixels; at most 16777216 are allowed"),
        ((MAX_AVIF_SIDE + 1, 1), "the AVIF would be 32769 x 1; at most 32768 pixels a side are allowed"),
    ],
)
def test_an_avif_that_would_be_too_large_is_left_out(bench: Bench, size: tuple[int, int], detail: str) -> None:
    large = pictures.saved(Image.new("1", size), "PNG")
    outcome = bench.run(large, encodings=(JpegEncoding(), AvifEncoding()))
    assert isinstance(outcome, ExportOutcome)
    assert [file.format for file in outcome.files] == ["jpeg"]
    assert outcome.warnings == (ExportWarning("encode_failed", detail, "avif"),)
    assert bench.made("avif") == b""


def test_the_longest_avif_can_be_read(bench: Bench) -> None:
    long = pictures.saved(Image.new("RGB", (MAX_AVIF_SIDE, 1), "teal"), "PNG")
    bench.export(long, encodings=(AvifEncoding(),))
    assert bench.image("avif").size == (MAX_AVIF_SIDE, 1)


def test_a_full_storage_is_named_for_each_format(bench: Bench) -> None:
    job = bench.job(pictures.jpeg(), encodings=(PngEncoding(), JpegEncoding()))
    Path(job.targets[0][1]).unlink()
    full = type(job)(job.source, None, job.plan, ((PngEncoding(), "/dev/full"), job.targets[1]))
    outcome = worker.run(full)
    assert isinstance(outcome, ExportOutcome)
    assert [file.format for file in outcome.files] == ["jpeg"]
    assert [(warning.code, warning.format) for warning in outcome.warnings] == [("storage_full", "png")]


def _with_small_files_only(job: ExportJob) -> Outcome:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    return worker.run(job)


def test_a_file_that_could_not_be_finished_is_left_empty(bench: Bench, pool: ProcessPoolExecutor) -> None:
    outcome = pool.submit(_with_small_files_only, bench.job(pictures.jpeg())).result()
    assert isinstance(outcome, ExportOutcome)
    assert outcome.files == ()
    assert [(warning.code, warning.format) for warning in outcome.warnings] == [
        ("encode_failed", "png"),
        ("encode_failed", "jpeg"),
        ("encode_failed", "webp"),
    ]
    assert [bench.made(encoding.format) for encoding in TRIO] == [b""] * 3


def test_a_target_that_is_a_link_is_not_followed(bench: Bench) -> None:
    job = bench.job(pictures.jpeg(), encodings=(WebpEncoding(),))
    victim = bench.folder / "victim"
    victim.write_bytes(b"mine")
    Path(job.targets[0][1]).unlink()
    Path(job.targets[0][1]).symlink_to(victim)
    outcome = worker.run(job)
    assert isinstance(outcome, ExportOutcome)
    assert outcome.files == ()
    assert victim.read_bytes() == b"mine"


# -- in a process of its own -------------------------------------------------------------------------------------------


@pytest.fixture
def pool() -> Iterator[ProcessPoolExecutor]:
    limits = WorkerLimits(pixels=40_000_000, memory_bytes=192 * MEBIBYTE)
    with ProcessPoolExecutor(1, get_context("spawn"), worker.start, (limits,)) as executor:
        yield executor


def test_a_picture_larger_than_the_memory_is_too_costly_and_the_worker_lives(
    bench: Bench, pool: ProcessPoolExecutor
) -> None:
    huge = pictures.saved(Image.new("1", (8_000, 5_000)), "PNG")
    # As RGB its pixels take 160 MB.
    pid = pool.submit(os.getpid).result()
    assert isinstance(pool.submit(worker.run, bench.job(huge)).result(), TooCostly)
    assert isinstance(pool.submit(worker.run, bench.job(pictures.jpeg())).result(), ExportOutcome)
    assert pool.submit(os.getpid).result() == pid


def test_an_avif_larger_than_the_memory_is_left_out_and_the_worker_lives(
    bench: Bench, pool: ProcessPoolExecutor
) -> None:
    large = pictures.saved(Image.new("1", (2_048, 2_048)), "PNG")
    pid = pool.submit(os.getpid).result()
    outcome = pool.submit(worker.run, bench.job(large, encodings=(AvifEncoding(), JpegEncoding()))).result()
    assert isinstance(outcome, ExportOutcome)
    assert [file.format for file in outcome.files] == ["jpeg"]
    assert outcome.warnings == (ExportWarning("encode_failed", "the AVIF needs more memory than a worker has", "avif"),)
    assert pool.submit(os.getpid).result() == pid


def _avif_of(size: tuple[int, int], more: int) -> str | None:
    """Encode noise with `more` address space than this process has; returns the warning."""
    image = Image.merge("RGBA", [Image.effect_noise(size, 80) for _ in "RGBA"])
    used = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize"))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (int(used.split()[1]) * 1024 + more, hard))
    made = FileMaker([image], ExportPlan(), CpuClock(60)).asked(AvifEncoding(100))
    return made.detail if isinstance(made, ExportWarning) else None


@pytest.mark.parametrize("size", [(1024, 1024), (16, 8192), (1, 1)])
def test_the_memory_asked_for_an_avif_is_enough(size: tuple[int, int]) -> None:
    """Less than enough may be a crash of the worker instead of a warning."""
    needed = avif_bytes(size)
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        assert executor.submit(_avif_of, size, needed // 2).result() == "the AVIF needs more memory than a worker has"
        assert executor.submit(_avif_of, size, needed + MEBIBYTE).result() is None


def test_only_the_parent_ends_a_worker(pool: ProcessPoolExecutor) -> None:
    pid = pool.submit(os.getpid).result()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert pool.submit(os.getpid).result() == pid
    assert pool.submit(os.nice, 0).result() >= 10


def test_a_worker_does_not_outlive_its_parent() -> None:
    code = (
        "import multiprocessing as m, os, threading\n"
        "from service.workers import worker\n"
        "from service.imaging.plan import WorkerLimits\n"
        "def child():\n"
        "    worker.start(WorkerLimits())\n"
        "    print(os.getpid(), flush=True)\n"
        "    threading.Event().wait()\n"
        "m.get_context('fork').Process(target=child).start()\n"
        "threading.Event().wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    ended, _, _ = select.select([child], [], [], 5)
    os.close(child)
    assert ended


def test_a_worker_loads_nothing_that_it_does_not_need() -> None:
    code = "import sys, service.workers.worker; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"aiohttp", "google.genai", "pydantic", "asyncio", "numpy"} & set(modules)
