"""AVIF sequences: the times of their frames, and no time of their making."""

import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from service.imaging import avif
from service.imaging.animated import encode_animation
from service.imaging.formats import AvifEncoding
from service.imaging.timing import Timing
from tests.imaging import moving
from tests.imaging.moving import played


def encoded(frames: list[Image.Image], durations: tuple[int, ...]) -> bytes:
    return encode_animation(frames, Timing(durations, plays=3), AvifEncoding(), (255, 255, 255))


def test_no_time_but_0_is_changed() -> None:
    durations = (0, 1, 33, 65_535_000, 100)
    assert played(encoded(moving.rolled(5), durations)).durations == [1, 1, 33, 65_535_000, 100]


def test_files_do_not_say_when_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = moving.sprites(2)
    data = encoded(frames, (40, 40))
    monkeypatch.setattr(avif, "_clear_dates", lambda boxes: None)
    dated = encoded(frames, (40, 40))
    assert len(dated) == len(data)
    # Of the movie, and of the tracks of colour and alpha, twice.
    assert 0 < sum(one != other for one, other in zip(dated, data, strict=True)) <= 5 * 2 * 8
    for kind in (b"mvhd", b"tkhd", b"mdhd"):
        at = data.index(kind)
        assert data[at + 8 : at + 24] == bytes(16)


def test_frames_may_be_of_both_modes() -> None:
    frames = [moving.rolled(1)[0], moving.sprites(2)[1]]
    shown = played(encoded(frames, (40, 40))).frames
    assert [frame.getchannel("A").getextrema()[0] for frame in shown] == [255, 0]


def test_equal_frames_are_kept() -> None:
    [frame] = moving.rolled(1)
    assert played(encoded([frame] * 3, (40, 50, 60))).durations == [40, 50, 60]


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
def test_ffprobe_counts_frames_and_time(tmp_path: Path) -> None:
    path = tmp_path / "file.avif"
    path.write_bytes(encoded(moving.panned(4), (40, 50, 60, 70)))
    entries = ["-show_entries", "stream=nb_read_frames,duration,pix_fmt,color_range,color_primaries,color_transfer"]
    command = ["ffprobe", "-v", "error", "-count_frames", *entries, "-of", "default=nw=1", str(path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(answer.stdout.split()) >= {
        "nb_read_frames=4",
        "duration=0.220000",
        "color_range=tv",
        "color_primaries=bt709",
        "color_transfer=iec61966-2-1",
    }
