"""Hostile and odd files: each is exported or refused by its type, within bounds of CPU time and memory."""

import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from PIL import Image

from service.imaging.errors import TooCostly, TooManyPixels, Undecodable, UnsupportedType
from service.imaging.formats import Format
from service.imaging.frame import Frame
from service.imaging.plan import ExportOutcome, ExportPlan
from tests.imaging import animations, pictures
from tests.imaging.animations import Film, Layer
from tests.imaging.fuzz import measured
from tests.imaging.pictures import RGB, chunk
from tests.imaging.workbench import Bench

PLAN = ExportPlan(Frame(longest=1280))
# Eight megapixels in a few kilobytes.
LZW_BOMB = animations.lzw_bomb(4_000)
# Makes the bytes of a file, when its test runs.
Make = Callable[[], bytes]


@cache
def bomb() -> bytes:
    """A hundred megabytes of zeros, compressed."""
    return zlib.compress(bytes(10**8))


def xmp(body: bytes) -> bytes:
    return chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0" + body)


def entity_bomb() -> bytes:
    entities = "".join(f"<!ENTITY e{level} '{f'&e{level - 1};' * 10}'>" for level in range(1, 12))
    return f"<!DOCTYPE a [<!ENTITY e0 '{'a' * 100}'>{entities}]><a>&e11;</a>".encode()


def with_scans(count: int) -> bytes:
    data = pictures.saved(Image.new("RGB", (2_000, 2_000), "red"), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * count + data[-2:]


ACCEPTED: dict[str, tuple[Make, Format, tuple[int, int]]] = {
    "one pixel png": (lambda: pictures.png(8, RGB, size=(1, 1)), "png", (1, 1)),
    "one pixel jpeg": (lambda: pictures.saved(Image.new("L", (1, 1)), "JPEG"), "jpeg", (1, 1)),
    "one pixel gif": (lambda: pictures.saved(Image.new("L", (1, 1)), "GIF"), "gif", (1, 1)),
    "one pixel webp": (lambda: pictures.saved(Image.new("RGB", (1, 1)), "WEBP"), "webp", (1, 1)),
    "very wide": (lambda: pictures.saved(Image.new("RGB", (16_384, 10)), "PNG"), "png", (1280, 1)),
    "very tall": (lambda: pictures.saved(Image.new("RGB", (10, 16_384)), "JPEG"), "jpeg", (1, 1280)),
    "20 MB of text": (lambda: pictures.png(8, RGB, extra=chunk(b"tEXt", b"a\0" + bytes(20_000_000))), "png", (96, 64)),
    "text bomb": (lambda: pictures.png(8, RGB, extra=chunk(b"zTXt", b"a\0\0" + bomb())), "png", (96, 64)),
    "profile bomb": (
        lambda: pictures.png(8, RGB, extra=chunk(b"iCCP", b"a\0\0" + bomb())),
        "png",
        (96, 64),
    ),
    "20 MB of XMP": (lambda: pictures.png(8, RGB, extra=xmp(b"<a>" * 6_666_666)), "png", (96, 64)),
    "20 MB before the XMP": (lambda: pictures.png(8, RGB, extra=xmp(b"en" * 10_000_000)), "png", (96, 64)),
    "entity bomb in XMP": (lambda: pictures.webp(xmp=entity_bomb()), "webp", (96, 64)),
    "65,000 damaged packets": (
        lambda: pictures.png(8, RGB, extra=(xmp(bytes(250))[:-1] + b"x") * 65_000),
        "png",
        (96, 64),
    ),
    "html behind": (lambda: pictures.png(8, RGB) + b"<html><script>alert(1)</script>", "png", (96, 64)),
    "zip behind": (lambda: pictures.jpeg() + b"PK\x03\x04" + bytes(500), "jpeg", (96, 64)),
    "orientation of another world": (lambda: pictures.jpeg(orientation=40_000), "jpeg", (96, 64)),
    "lzw bomb": (lambda: gif_of(1, gif_image(8, LZW_BOMB)), "gif", (8, 8)),
    "as many scans as allowed": (lambda: with_scans(80), "jpeg", (1280, 1280)),
}

REFUSED: dict[str, tuple[Make, type[Exception]]] = {
    "empty": (lambda: b"", UnsupportedType),
    "text named a picture": (lambda: b"not a picture at all", UnsupportedType),
    "bmp": (lambda: pictures.saved(Image.new("L", (4, 4)), "BMP"), UnsupportedType),
    "tiff": (lambda: pictures.saved(Image.new("L", (4, 4)), "TIFF"), UnsupportedType),
    "eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", UnsupportedType),
    "svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", UnsupportedType),
    "png by its first bytes only": (lambda: b"\x89PNG\r\n\x1a\n<html>", Undecodable),
    "3,000 scans": (lambda: with_scans(3_000), TooCostly),
    "50,000 x 50,000": (
        lambda: pictures.png(8, RGB, size=(1, 1)).replace(b"\0\0\0\1\0\0\0\1", b"\0\0\xc3\x50" * 2),
        TooManyPixels,
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_odd_picture_is_exported(bench: Bench, name: str) -> None:
    make, form, size = ACCEPTED[name]
    outcome, cpu_seconds, megabytes = measured(bench.job(make(), PLAN))
    assert isinstance(outcome, ExportOutcome), outcome
    assert (outcome.picture.format, outcome.size, len(outcome.files)) == (form, size, 3)
    assert cpu_seconds < 10
    assert megabytes < 700


def gif_of(number: int, image: bytes, screen: bytes = b"\x08\0\x08\0") -> bytes:
    return b"GIF89a" + screen + bytes(3) + image * number + b";"


def gif_image(side: int, pixels: bytes) -> bytes:
    return b"," + bytes(4) + side.to_bytes(2, "little") * 2 + b"\0" + pixels


ANIMATIONS: dict[str, tuple[Make, type[Exception]]] = {
    "100,000 frames": (lambda: gif_of(100_000, gif_image(1, animations.lzw([0]))), TooCostly),
    "1,001 frames": (lambda: gif_of(1_001, gif_image(1, animations.lzw([0]))), TooManyPixels),
    "frames larger than the canvas": (lambda: gif_of(60, gif_image(1_000, LZW_BOMB)), TooManyPixels),
    "one frame of 65535 x 65535": (lambda: gif_of(1, gif_image(65_535, LZW_BOMB)), TooManyPixels),
    "a logical screen of 65535 x 65535": (lambda: gif_of(2, gif_image(1, LZW_BOMB), b"\xff" * 4), TooManyPixels),
    "100,000 frames of an APNG": (lambda: apng_of(100_000), TooCostly),
    "100,000 frames of a WebP": (lambda: webp_of(100_000), TooCostly),
}


def apng_of(number: int) -> bytes:
    layer = Layer(Image.new("RGBA", (1, 1)))
    data = animations.apng(Film((1, 1), [layer] * 2))
    at = data.rindex(b"fcTL") - 4
    return data[:at] + data[at:-12] * (number - 1) + data[-12:]


def webp_of(number: int) -> bytes:
    layer = Layer(Image.new("RGBA", (1, 1)))
    data = animations.webp(Film((1, 1), [layer])) + animations.anmf(layer) * (number - 1)
    return data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:]


@pytest.mark.parametrize("name", ANIMATIONS)
def test_a_hostile_animation_is_refused_before_it_is_decoded(bench: Bench, name: str) -> None:
    make, kind = ANIMATIONS[name]
    outcome, cpu_seconds, megabytes = measured(bench.job(make(), replace(PLAN, animate="keep")))
    assert type(outcome) is kind
    assert cpu_seconds < 5
    assert megabytes < 700


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_file_is_refused_by_type(bench: Bench, name: str) -> None:
    make, kind = REFUSED[name]
    outcome, cpu_seconds, _ = measured(bench.job(make(), PLAN))
    assert type(outcome) is kind
    assert cpu_seconds < 1


def test_a_decompression_bomb_is_inflated_to_its_declared_size_only(bench: Bench) -> None:
    header = pictures.png(8, RGB, size=(1, 1))[:33]
    data = header + chunk(b"IDAT", bomb()) + chunk(b"IEND", b"")
    outcome, _, megabytes = measured(bench.job(data, PLAN))
    assert isinstance(outcome, ExportOutcome)
    assert megabytes < 700
