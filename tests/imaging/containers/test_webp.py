"""The chunks of a WebP are treated as in libwebp: they count if VP8X announces them, up to the length of the RIFF."""

from struct import pack

import pytest
from PIL import Image

from service.imaging.compose import composed
from service.imaging.errors import Undecodable
from service.imaging.probe import probe
from service.imaging.timing import Timing
from tests.imaging import icc, pictures
from tests.imaging.animations import Film, Layer, anmf, plain, webp, worst
from tests.imaging.pictures import exif

LIMIT = 1_000_000
EXIF, PROFILE, ANIMATION = 0x08, 0x20, 0x02


def flagged(data: bytes, *, off: int) -> bytes:
    return data[:20] + bytes((data[20] & ~off,)) + data[21:]


def riff_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def sized(data: bytes) -> bytes:
    return data[:4] + pack("<I", len(data) - 8) + data[8:]


def test_metadata_counts_where_it_is_announced_only() -> None:
    data = pictures.webp(orientation=6, profile=icc.DISPLAY_P3)
    assert (probe(data, LIMIT).orientation, probe(data, LIMIT).profile) == (6, icc.DISPLAY_P3)
    assert probe(flagged(data, off=EXIF), LIMIT).orientation == 1
    assert probe(flagged(data, off=PROFILE), LIMIT).profile is None


def test_a_simple_file_has_no_metadata() -> None:
    data = sized(pictures.webp() + riff_chunk(b"EXIF", exif(6)) + riff_chunk(b"ICCP", icc.DISPLAY_P3))
    assert (probe(data, LIMIT).orientation, probe(data, LIMIT).profile) == (1, None)


@pytest.mark.parametrize("block", [exif(3), pictures.EMPTY_EXIF, b"rubbish"])
def test_of_several_exif_blocks_the_first_counts(block: bytes) -> None:
    data = pictures.webp(orientation=6)
    assert probe(sized(data + riff_chunk(b"EXIF", block)), LIMIT).orientation == 6
    at = data.index(b"EXIF")
    first = sized(data[:at] + riff_chunk(b"EXIF", block) + data[at:])
    assert probe(first, LIMIT).orientation == (3 if block == exif(3) else 1)


def test_chunks_after_the_end_of_the_riff_are_ignored() -> None:
    data = pictures.webp(orientation=6)
    short = data[:4] + pack("<I", data.index(b"EXIF") - 8) + data[8:]
    assert probe(short, LIMIT).orientation == 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_frames_are_counted(count: int) -> None:
    frames = [Image.new("RGB", (8, 8), (level * 40, 0, 0)) for level in range(count)]
    data = pictures.saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=100)
    assert probe(data, LIMIT).frames == count


def test_one_frame_is_a_still() -> None:
    frames = [Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")]
    data = pictures.saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=100)
    assert probe(sized(data[: data.rindex(b"ANMF")]), LIMIT).frames == 1


# -- Animations --------------------------------------------------------------------------------------------------------

FILM = Film((8, 8), [Layer(plain((8, 8), "red")), Layer(plain((4, 4), "blue"), 2, 2, 16_777_215)], plays=65_535)


def frame_of(layer: Layer) -> bytes:
    return anmf(layer)[8:]


def animated(*frames: bytes) -> bytes:
    """An animation of these bodies of frames."""
    data = webp(FILM)
    return sized(data[: data.index(b"ANMF")] + b"".join(riff_chunk(b"ANMF", frame) for frame in frames))


def composed_frames(data: bytes) -> list[Image.Image]:
    animation = probe(data, LIMIT).animation
    assert animation is not None
    return list(composed(animation))


def test_times_are_milliseconds_and_plays_are_those_of_the_header() -> None:
    animation = probe(webp(FILM), LIMIT).animation
    assert animation is not None
    assert animation.timing == Timing((70, 16_777_215), 65_535)


def test_a_lossy_frame_has_its_alpha() -> None:
    part = Image.new("RGBA", (30, 20), (20, 200, 90, 0))
    part.paste((20, 200, 90, 255), (0, 0, 15, 20))
    still = pictures.saved(part, "WEBP", quality=90)
    body = frame_of(Layer(part, 4, 2))[:16] + still[still.index(b"ALPH") :]
    film = Film((40, 30), [Layer(plain((40, 30), "red"))])
    data = webp(film)
    [_, frame] = composed_frames(sized(data + riff_chunk(b"ANMF", body)))
    assert worst(frame.crop((30, 10, 32, 12)), plain((2, 2), "red")) == 0
    assert worst(frame.crop((10, 10, 12, 12)), plain((2, 2), (20, 200, 90, 255))) <= 3


def test_unknown_chunks_behind_a_frame_are_ignored() -> None:
    body = frame_of(FILM.layers[1]) + riff_chunk(b"ABCD", b"xyz")
    assert len(composed_frames(animated(frame_of(FILM.layers[0]), body))) == 2


def bad_frames() -> dict[str, bytes]:
    body = frame_of(FILM.layers[1])
    return {
        "beyond the right edge": frame_of(Layer(plain((4, 4), "blue"), 6, 2)),
        "beyond the bottom": frame_of(Layer(plain((4, 4), "blue"), 2, 6)),
        "of another size": body[:6] + (5).to_bytes(3, "little") + body[9:],
        "empty": body[:16],
        "short": body[:7],
        "broken": body[:24] + bytes(len(body) - 24),
        "cut": body[:-6],
        "unknown chunk first": body[:16] + riff_chunk(b"ABCD", b"xyz") + body[16:],
    }


@pytest.mark.parametrize("name", bad_frames())
def test_a_frame_that_is_broken_or_leaves_the_canvas_is_undecodable(name: str) -> None:
    with pytest.raises(Undecodable):
        composed_frames(animated(frame_of(FILM.layers[0]), bad_frames()[name]))


def test_an_animation_without_its_header_is_undecodable() -> None:
    data = webp(FILM)
    at = data.index(b"ANIM")
    with pytest.raises(Undecodable, match="no animation header"):
        composed_frames(sized(data[:at] + data[at + 14 :]))
