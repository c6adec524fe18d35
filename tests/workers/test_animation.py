"""Animations in a worker: what fails alone, what is refused, and what is kept in memory."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from service.imaging.animated import encode_animation
from service.imaging.containers.container import Container
from service.imaging.errors import TooCostly, TooManyPixels, Undecodable
from service.imaging.formats import AvifEncoding, Encoding, GifEncoding, JpegEncoding, PngEncoding, WebpEncoding
from service.imaging.frame import Frame
from service.imaging.plan import ExportOutcome, ExportPlan, WorkerLimits
from service.workers import files, worker
from service.workers.pool import WorkerPool
from tests.animations import BLUE, COLOURS, RED, WHITE, animation, long_gif, shown
from tests.helpers import picture_bytes
from tests.imaging.workbench import Bench
from tests.workers.pools import Pools

KEEP = ExportPlan(animate="keep")
MOVING: tuple[Encoding, ...] = (PngEncoding(), WebpEncoding(), AvifEncoding(), GifEncoding())
EVERY: tuple[Encoding, ...] = (*MOVING, JpegEncoding())


def test_one_format_that_fails_leaves_the_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(frames: Sequence[Image.Image], timing: Any, encoding: Encoding, *rest: Any) -> bytes:
        if encoding.format in ("webp", "avif"):
            raise OSError("no frame")
        return encode_animation(frames, timing, encoding, *rest)

    monkeypatch.setattr(files, "encode_animation", failing)
    outcome = bench.run(animation("GIF", plays=1), KEEP, encodings=EVERY)
    assert isinstance(outcome, ExportOutcome)
    assert [file.format for file in outcome.files] == ["png", "gif", "jpeg"]
    # What is not there does not loop.
    assert [(each.code, each.format) for each in outcome.warnings] == [
        ("encode_failed", "webp"),
        ("encode_failed", "avif"),
    ]


def test_an_avif_that_is_too_large_is_left_out_before_it_is_encoded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.imaging.formats.MAX_AVIF_PIXELS", 64 * 36 - 1)
    outcome = bench.run(animation("GIF"), KEEP, encodings=MOVING)
    assert isinstance(outcome, ExportOutcome)
    [warning] = outcome.warnings
    assert (warning.code, warning.format) == ("encode_failed", "avif")
    assert warning.detail == "the AVIF would have 2304 pixels; at most 2303 are allowed"


def test_a_file_says_how_many_frames_it_has_itself(bench: Bench) -> None:
    outcome = bench.export(animation("GIF", [RED, BLUE, WHITE, RED], duration=40), KEEP, encodings=EVERY)
    for file in outcome.files:
        assert file.frames == len(shown(bench.made(file.format)).colours) == (1 if file.format == "jpeg" else 4)


def test_equal_frames_may_be_one_and_the_total_stays(bench: Bench) -> None:
    # Pillow writes both of the first frames, since they are not equal; they are when they lie on the matte.
    clear = [(0, 9, 9, 0), (9, 0, 9, 0), (*RED, 255)]
    source = animation("WEBP", clear, lossless=True, exact=True, duration=50)
    outcome = bench.export(source, KEEP, encodings=MOVING)
    for file in outcome.files:
        made = shown(bench.made(file.format))
        assert (file.frames, sum(made.durations)) == (len(made.colours), 150), file.format


def test_a_broken_base_leaves_the_animation(bench: Bench) -> None:
    outcome = bench.export(animation("GIF"), KEEP, base=b"no picture", encodings=MOVING)
    assert [each.code for each in outcome.warnings] == ["composite_failed"]
    assert {file.frames for file in outcome.files} == {3}


def test_a_base_is_decoded_once_for_all_frames(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    container = worker._read_container

    def noted(path: str) -> Container:
        read.append(path)
        return container(path)

    monkeypatch.setattr(worker, "_read_container", noted)
    bench.export(animation("GIF"), KEEP, base=picture_bytes((64, 36)), encodings=MOVING)
    assert len(read) == 2


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_is_refused_before_its_base_is_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(worker, "_limits", WorkerLimits(animation_frames=2))
    read: list[object] = []
    monkeypatch.setattr(worker, "_base", read.append)
    outcome = bench.run(animation(kind), KEEP, base=picture_bytes())
    assert isinstance(outcome, TooManyPixels)
    assert read == []


def test_a_file_that_ends_within_a_frame_is_refused(bench: Bench) -> None:
    data = animation("GIF", size=(320, 180))
    assert isinstance(bench.run(data[: len(data) // 2], KEEP), Undecodable)


def test_a_frame_of_another_mode_is_brought_to_that_of_the_others(bench: Bench) -> None:
    mixed = animation("WEBP", [(*RED, 255), (*BLUE, 100)], lossless=True)
    plan = ExportPlan(Frame(32, 18), animate="keep", alpha="keep")
    bench.export(mixed, plan, encodings=MOVING)
    for name in ("png", "webp", "avif"):
        assert shown(bench.made(name)).size == (32, 18)


def test_the_frames_of_a_plan_without_keep_are_not_read(bench: Bench) -> None:
    outcome = bench.export(animation("GIF", COLOURS), encodings=EVERY)
    assert {file.frames for file in outcome.files} == {1}


@pytest.mark.slow
async def test_an_animation_at_the_limit_takes_little_more_memory_than_its_frames(bench: Bench, pools: Pools) -> None:
    limit = WorkerLimits().animation_pixels
    data = long_gif(limit // 500**2, (500, 500))
    pool = pools()
    outcome = await pool.run(bench.job(data, KEEP, encodings=EVERY), "a")
    assert isinstance(outcome, ExportOutcome)
    assert len(outcome.files) == len(EVERY)
    [pid] = pool.pids
    status = await asyncio.to_thread(Path(f"/proc/{pid}/status").read_text)
    peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak < 4 * limit + 200_000_000


async def test_too_little_memory_for_the_frames_is_too_costly_and_the_worker_lives(bench: Bench) -> None:
    pool = WorkerPool(1, WorkerLimits(memory_bytes=256 << 20))
    try:
        await pool.start()
        [pid] = pool.pids
        outcome = await pool.run(bench.job(long_gif(49, (1000, 1000)), KEEP, encodings=(GifEncoding(),)), "a")
        assert isinstance(outcome, TooCostly)
        assert pool.pids == [pid]
    finally:
        await pool.close()
