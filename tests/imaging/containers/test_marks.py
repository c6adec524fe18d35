"""XMP marks and C2PA manifests are found in the chunks and segments where readers of metadata look for them."""

from collections.abc import Callable
from struct import pack

import pytest

from service.imaging.containers.container import Container
from service.imaging.probe import probe
from service.imaging.provenance import MAX_XMP_BYTES, Mark, packet
from tests.imaging import pictures
from tests.imaging.pictures import RGB, chunk

GENERATED: Mark = "trainedAlgorithmicMedia"
COMPOSITE: Mark = "compositeWithTrainedAlgorithmicMedia"
XMP, OTHER = packet(GENERATED), packet(COMPOSITE)
KEYWORD, NAMESPACE = b"XML:com.adobe.xmp", b"http://ns.adobe.com/xap/1.0/\0"
LARGEST, TOO_LARGE = XMP.ljust(MAX_XMP_BYTES), XMP.ljust(MAX_XMP_BYTES + 1)
# A C2PA manifest store begins with its description, which has the label "c2pa".
DESCRIPTION = pack(">I4s16sB5s", 30, b"jumd", b"c2pa\0\x11\0\x10\x80\0\0\xaa\0\x38\x9b\x71", 3, b"c2pa\0")
MANIFESTS = pack(">I4s", 8 + 30 + 8, b"jumb") + DESCRIPTION + bytes(8)


def probed(data: bytes) -> Container:
    return probe(data, 1_000_000)


# -- PNG ---------------------------------------------------------------------------------------------------------------


def itxt(text: bytes, before: bytes = b"\0\0\0\0", keyword: bytes = KEYWORD) -> bytes:
    return chunk(b"iTXt", keyword + b"\0" + before + text)


def png(*before_pixels: bytes, after: bytes = b"") -> Container:
    data = pictures.png(8, RGB, extra=b"".join(before_pixels))
    return probed(data[:-12] + after + data[-12:])


def damaged(part: bytes) -> bytes:
    return part[:-1] + bytes((part[-1] ^ 1,))


def cut(part: bytes) -> bytes:
    """One that says that it is longer than the file."""
    return pack(">I", len(part) + 1_000) + part[4:]


def test_png_says_its_mark_before_or_after_the_pixels() -> None:
    assert png().mark is None
    assert png(itxt(XMP)).mark == png(after=itxt(XMP)).mark == GENERATED


def test_the_packet_of_a_png_may_have_a_language() -> None:
    assert png(itxt(XMP, b"\0\0en-GB\0XMP \xe2\x9c\x93\0")).mark == GENERATED


@pytest.mark.parametrize(
    "part",
    [
        itxt(XMP, b"\1\0\0\0"),
        itxt(XMP, b"\0\0\0"),
        itxt(XMP, b""),
        itxt(b"", b"\0"),
        itxt(XMP, keyword=b"XML:com.adobe.xmp "),
        itxt(XMP, keyword=b"Comment"),
        damaged(itxt(XMP)),
        chunk(b"tEXt", KEYWORD + b"\0" + XMP),
        chunk(b"iTXt", KEYWORD + XMP),
        chunk(b"eXIf", XMP),
        chunk(b"prVt", XMP),
        itxt(TOO_LARGE),
        itxt(XMP[:300]) + itxt(XMP[300:]),
    ],
    ids=range(13),
)
def test_anything_else_in_a_png_is_no_mark(part: bytes) -> None:
    assert png(part).mark is None


def test_the_largest_packet_of_a_png_is_read() -> None:
    assert png(itxt(LARGEST, b"\0\0en\0XMP\0")).mark == GENERATED


@pytest.mark.parametrize(
    ("parts", "mark"),
    [
        ((itxt(XMP), itxt(OTHER)), GENERATED),
        ((itxt(XMP, b"\1\0\0\0"), itxt(OTHER)), None),
        ((itxt(TOO_LARGE), itxt(OTHER)), None),
        ((damaged(itxt(XMP)), itxt(OTHER)), COMPOSITE),
        ((itxt(XMP, keyword=b"Comment"), itxt(OTHER)), COMPOSITE),
    ],
    ids=range(5),
)
def test_of_several_packets_of_a_png_the_first_counts(parts: tuple[bytes, ...], mark: Mark | None) -> None:
    assert png(*parts).mark == png(after=b"".join(parts)).mark == png(parts[0], after=parts[1]).mark == mark


def test_what_follows_the_end_of_a_png_is_not_read() -> None:
    found = probed(pictures.png(8, RGB) + itxt(XMP) + chunk(b"caBX", MANIFESTS))
    assert (found.mark, found.c2pa) == (None, False)


def test_a_png_whose_packet_lies_about_its_length_has_no_mark() -> None:
    data = pictures.png(8, RGB)
    assert probed(data[:-12] + cut(itxt(XMP)) + data[-12:]).mark is None


@pytest.mark.parametrize("change", [bytes, damaged])
def test_png_says_whether_it_has_a_manifest(change: Callable[[bytes], bytes]) -> None:
    manifests = change(chunk(b"caBX", MANIFESTS))
    assert not png().c2pa
    assert not png(chunk(b"tEXt", b"caBX\0" + MANIFESTS)).c2pa
    assert png(manifests).c2pa
    assert png(after=manifests).c2pa


# -- JPEG --------------------------------------------------------------------------------------------------------------


def segment(marker: int, body: bytes) -> bytes:
    return pack(">BBH", 0xFF, marker, 2 + len(body)) + body


def app1(xmp: bytes) -> bytes:
    return segment(0xE1, NAMESPACE + xmp)


def app11(box: bytes) -> bytes:
    return segment(0xEB, b"JP" + pack(">HI", 1, 1) + box)


def jpeg(*parts: bytes, data: bytes = pictures.jpeg()) -> Container:
    return probed(data[:2] + b"".join(parts) + data[2:])


def after_the_scan(part: bytes) -> Container:
    data = pictures.jpeg(progressive=True)
    at = data.rindex(b"\xff\xda")
    return probed(data[:at] + part + data[at:])


def test_jpeg_says_its_mark() -> None:
    assert jpeg().mark is None
    assert jpeg(app1(XMP)).mark == GENERATED
    assert (
        jpeg(segment(0xE1, b"Exif\0\0" + pictures.exif(6)), segment(0xE5, bytes(60_000)), app1(XMP)).mark == GENERATED
    )
    assert probed(pictures.jpeg(xmp=OTHER)).mark == COMPOSITE


@pytest.mark.parametrize(
    "part",
    [
        segment(0xE2, NAMESPACE + XMP),
        segment(0xFE, NAMESPACE + XMP),
        segment(0xE1, NAMESPACE[:-1] + XMP),
        segment(0xE1, XMP),
        segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + 32 * b"0" + pack(">II", len(XMP), 0) + XMP),
        app1(XMP[:300]) + app1(XMP[300:]),
    ],
    ids=range(6),
)
def test_anything_else_in_a_jpeg_is_no_mark(part: bytes) -> None:
    assert jpeg(part).mark is None


def test_of_several_packets_of_a_jpeg_the_first_counts() -> None:
    assert jpeg(app1(XMP), app1(OTHER)).mark == GENERATED
    assert jpeg(app1(b""), app1(OTHER)).mark is None


def test_of_an_extended_packet_the_main_one_is_read() -> None:
    main = XMP.replace(b" rdf:about", b" xmpNote:HasExtendedXMP='" + 32 * b"0" + b"' rdf:about")
    extension = segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + 32 * b"0" + pack(">II", len(OTHER), 0) + OTHER)
    assert jpeg(app1(main), extension).mark == GENERATED


def test_a_jpeg_says_its_mark_and_manifest_before_the_first_scan() -> None:
    assert after_the_scan(app1(XMP)).mark is None
    assert not after_the_scan(app11(MANIFESTS)).c2pa


@pytest.mark.parametrize("box", [MANIFESTS, pack(">I4sQ", 1, b"jumb", 46) + DESCRIPTION], ids=["short", "long"])
def test_jpeg_says_whether_it_has_a_manifest(box: bytes) -> None:
    assert not jpeg().c2pa
    assert jpeg(app11(box)).c2pa


@pytest.mark.parametrize(
    "part",
    [
        segment(0xEB, b"JP" + bytes(6)),
        segment(0xEB, b"HDR_RI ver=11"),
        app11(MANIFESTS[:37]),
        app11(MANIFESTS.replace(b"c2pa\0" + bytes(8), b"c2pb\0" + bytes(8))),
        app11(MANIFESTS.replace(b"jumb", b"jumd")),
        segment(0xEA, b"JP" + pack(">HI", 1, 1) + MANIFESTS),
        segment(0xEB, MANIFESTS),
    ],
    ids=range(7),
)
def test_other_boxes_of_a_jpeg_are_no_manifest(part: bytes) -> None:
    assert not jpeg(part).c2pa


# -- WebP --------------------------------------------------------------------------------------------------------------


def riff_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def webp(*parts: bytes, data: bytes = pictures.webp()) -> Container:
    data += b"".join(parts)
    return probed(data[:4] + pack("<I", len(data) - 8) + data[8:])


def test_webp_says_its_mark_whether_announced_or_not() -> None:
    announced = pictures.webp(xmp=XMP)
    assert webp().mark is None
    assert probed(announced).mark == GENERATED
    assert probed(announced[:20] + bytes((announced[20] & ~0x04,)) + announced[21:]).mark == GENERATED
    assert webp(riff_chunk(b"XMP ", XMP)).mark == GENERATED


@pytest.mark.parametrize(
    "part",
    [
        riff_chunk(b"XMP\0", XMP),
        riff_chunk(b"xmp ", XMP),
        riff_chunk(b"EXIF", XMP),
        riff_chunk(b"XMP ", TOO_LARGE),
        riff_chunk(b"XMP ", XMP[:300]) + riff_chunk(b"XMP ", XMP[300:]),
    ],
    ids=range(5),
)
def test_anything_else_in_a_webp_is_no_mark(part: bytes) -> None:
    assert webp(part).mark is None


def test_of_several_packets_of_a_webp_the_first_counts() -> None:
    assert webp(riff_chunk(b"XMP ", XMP), riff_chunk(b"XMP ", OTHER)).mark == GENERATED
    assert webp(riff_chunk(b"XMP ", b""), riff_chunk(b"XMP ", OTHER)).mark is None
    assert webp(riff_chunk(b"XMP ", LARGEST)).mark == GENERATED


def test_webp_says_whether_it_has_a_manifest() -> None:
    assert not webp(riff_chunk(b"c2pa", MANIFESTS)).c2pa
    assert webp(riff_chunk(b"C2PA", MANIFESTS)).c2pa


def test_what_follows_the_end_of_a_webp_is_not_read() -> None:
    found = probed(pictures.webp() + riff_chunk(b"XMP ", XMP) + riff_chunk(b"C2PA", MANIFESTS))
    assert (found.mark, found.c2pa) == (None, False)
