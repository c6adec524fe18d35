"""JPEGs without their end marker, JPEGs without part of their scan data, and kinds of JPEG that are not decoded."""

from base64 import b64decode

import pytest
from PIL import Image

from service.imaging.containers.container import Container
from service.imaging.decode import decode
from service.imaging.errors import Undecodable
from service.imaging.probe import probe
from tests.imaging import pictures

LIMIT = 1_000_000

KINDS: dict[str, bytes] = {
    "baseline": pictures.jpeg(),
    "optimized": pictures.jpeg(optimize=True),
    "grey": pictures.jpeg("L"),
    "cmyk": pictures.jpeg("CMYK"),
    "best": pictures.jpeg(quality=100, subsampling="4:4:4"),
    "progressive": pictures.jpeg(progressive=True),
    "restarts": pictures.jpeg(restart_marker_blocks=1),
    "restarts-rows": pictures.jpeg(restart_marker_rows=1),
    "progressive-restarts": pictures.jpeg(progressive=True, restart_marker_rows=1),
}

# Grey ramps, 16 x 16, arithmetic coded.
ARITHMETIC = b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcpLDAxNDQ0Hyc5PTgyPC4zNDL/"
    "yQALCAAQABABAREA/8wABgAQEAX/2gAIAQEAAD8A/wCyhjQX7W696x/3wJqKuDj/2Q=="
)


def probed(data: bytes) -> Container:
    return probe(data, LIMIT)


def pixels(data: bytes) -> bytes:
    return decode(probed(data)).tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "end",
    [
        *(b"", b"\xff", b"\xff\xff", b"\0\0", b"\xff\0", b"\0\xd9", b"\x7f\xd9", b"\xff\xd1", b"\xff\xd8", b"\xff\xc9"),
        *(b"\xff\xda", b"\xff\xdb", b"\xff\xdd", b"\xff\xf9", b"\xff\x59", b"\xff\x01", b"\0\xd9and more"),
    ],
    ids=bytes.hex,
)
def test_a_picture_without_its_end_marker_only_is_decoded(kind: str, end: bytes) -> None:
    data = KINDS[kind]
    assert pixels(data[:-2] + end) == pixels(data)


def test_a_second_picture_after_one_without_an_end_marker_is_ignored() -> None:
    data = pictures.jpeg()
    assert pixels(data[:-2] + pictures.jpeg("L")) == pixels(data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_that_lacks_any_of_its_scans_is_refused(kind: str) -> None:
    data = KINDS[kind]
    scan = data.index(b"\xff\xda")
    for end in [*range(scan, len(data) - 40, 61), *range(len(data) - 40, len(data) - 2)]:
        with pytest.raises(Undecodable, match="broken or cut"):
            pixels(data[:end])


def test_a_progressive_picture_without_its_last_scan_is_refused() -> None:
    data = pictures.jpeg(progressive=True)
    with pytest.raises(Undecodable, match="broken or cut"):
        probed(data[: data.rindex(b"\xff\xda")])


def test_all_scans_of_single_channels_are_needed() -> None:
    plain = pictures.saved(Image.new("L", (8, 8), 200), "JPEG")
    scan = plain.index(b"\xff\xda")
    frame = plain.index(b"\xff\xc0")
    three = plain[:frame] + b"\xff\xc0\0\x11\x08\0\x08\0\x08\x03\1\x11\0\2\x11\0\3\x11\0" + plain[frame + 13 : scan]
    body = plain[scan + 10 : -2]
    for channel in (1, 2, 3):
        three += b"\xff\xda\0\x08\1" + bytes((channel, 0, 0, 63, 0)) + body
    assert pixels(three) == pixels(three + b"\xff\xd9")
    with pytest.raises(Undecodable):
        probed(three[: three.rindex(b"\xff\xda")])


def of_kind(marker: int, precision: int = 8) -> bytes:
    data = pictures.jpeg()
    frame = data.index(b"\xff\xc0")
    return data[:frame] + bytes((0xFF, marker, *data[frame + 2 : frame + 4], precision)) + data[frame + 5 :]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (of_kind(0xC1, 12), "12-bit JPEG"),
        (of_kind(0xC2, 12), "12-bit JPEG"),
        (of_kind(0xC1, 16), "16-bit JPEG"),
        (of_kind(0xC3), "lossless JPEG"),
        (of_kind(0xC3, 16), "lossless JPEG"),
        (of_kind(0xCB), "lossless JPEG"),
        *((of_kind(marker), "hierarchical JPEG") for marker in (0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE)),
        (of_kind(0xF7), "JPEG-LS"),
        (b"\xff\xd8\xff\xc0\0\x0e\x08\0\x08\0\x08\2\1\x11\0\2\x11\0" + pictures.jpeg()[2:], "2-channel JPEG"),
    ],
)
def test_a_kind_that_is_not_decoded_is_named(data: bytes, kind: str) -> None:
    with pytest.raises(Undecodable, match=f"^{kind} pictures are not supported$"):
        probed(data)


def test_arithmetic_coding_is_decoded() -> None:
    ramps = [(16 * x + y) % 256 for y in range(16) for x in range(16)]
    assert list(pixels(ARITHMETIC)) == pytest.approx(ramps, abs=9)


def test_metadata_counts_before_the_first_scan_only() -> None:
    tail = pictures.jpeg(orientation=6)
    segment = tail[tail.index(b"\xff\xe1") :][:34]
    data = pictures.jpeg()
    assert probed(data[:-2] + segment + data[-2:]).orientation == 1
