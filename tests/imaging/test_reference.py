"""Colours, orientation and transparency compared with libvips, which shares only the codecs with Pillow."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import pytest
import pyvips
from PIL import Image, ImageChops

from service.imaging.formats import JpegEncoding, PngEncoding, WebpEncoding
from service.imaging.normalize import resize
from service.imaging.plan import ExportPlan
from tests.imaging import icc, pictures
from tests.imaging.pictures import GREY, GREY_ALPHA, PALETTE, RGB, RGB_ALPHA
from tests.imaging.workbench import Bench

MATTE = (250, 120, 30)
LEVELS = 2
PERCENTILE = 0.999
# Mean CIEDE2000 between the PNG and the JPEG or WebP of the same picture at quality 95; WebP always halves the chroma.
MEAN_DELTA_E_JPEG = 1.0
MEAN_DELTA_E_WEBP = 1.6

# Makes a picture, when its test runs.
Make = Callable[[], bytes]


def _cases() -> dict[str, Make]:
    cases: dict[str, Make] = {}
    rgb = {"none": None, "srgb": icc.SRGB, "p3": icc.DISPLAY_P3, "adobe": icc.ADOBE_RGB, "prophoto": icc.PROPHOTO}
    grey = {"none": None, "gamma1.8": icc.grey_profile(1.8), "gamma2.2": icc.grey_profile(2.2)}
    for name, profile in rgb.items():
        for depth in (8, 16):
            cases[f"png-rgb{depth}-{name}"] = partial(pictures.png, depth, RGB, profile=profile)
            cases[f"png-rgba{depth}-{name}"] = partial(pictures.png, depth, RGB_ALPHA, profile=profile)
        cases[f"png-palette8-{name}"] = partial(pictures.png, 8, PALETTE, profile=profile)
        cases[f"jpeg-rgb-{name}"] = partial(pictures.jpeg, profile=profile)
        cases[f"webp-rgb-{name}"] = partial(pictures.webp, profile=profile)
        cases[f"webp-rgba-lossless-{name}"] = partial(pictures.webp, "RGBA", profile=profile, lossless=True)
    for name, profile in (grey | {"linear": icc.grey_profile(1.0)}).items():
        for depth in (8, 16):
            cases[f"png-grey{depth}-{name}"] = partial(pictures.png, depth, GREY, profile=profile)
            cases[f"png-greyalpha{depth}-{name}"] = partial(pictures.png, depth, GREY_ALPHA, profile=profile)
        cases[f"jpeg-grey-{name}"] = partial(pictures.jpeg, "L", profile=profile)
    for depth in (1, 2, 4, 8, 16):
        key = (2**depth // 2).to_bytes(2)
        cases[f"png-grey{depth}-plain"] = partial(pictures.png, depth, GREY)
        cases[f"png-grey{depth}-key"] = partial(pictures.png, depth, GREY, transparency=key)
        if depth <= 8:
            cases[f"png-palette{depth}"] = partial(pictures.png, depth, PALETTE)
            cases[f"png-palette{depth}-alpha"] = partial(pictures.png, depth, PALETTE, transparency=bytes([0, 128]))
    cases["png-rgb8-key"] = partial(pictures.png, 8, RGB, transparency=bytes([0, 255, 0, 255, 0, 0]))
    cases["png-rgb16-key"] = partial(pictures.png, 16, RGB, transparency=b"\xff\xff\xff\xff\0\0")
    for orientation in range(1, 9):
        cases[f"jpeg-orientation{orientation}"] = partial(pictures.jpeg, orientation=orientation)
        cases[f"webp-orientation{orientation}"] = partial(pictures.webp, orientation=orientation)
        cases[f"png-orientation{orientation}"] = partial(pictures.png, 8, RGB_ALPHA, orientation=orientation)
    for subsampling in ("4:2:0", "4:2:2", "4:4:4"):
        cases[f"jpeg-{subsampling}"] = partial(pictures.jpeg, subsampling=subsampling)
    cases["jpeg-progressive"] = partial(pictures.jpeg, progressive=True)
    cases["jpeg-cmyk"] = partial(pictures.jpeg, "CMYK", profile=icc.cmyk_profile())
    cases["jpeg-cmyk-progressive"] = partial(pictures.jpeg, "CMYK", profile=icc.cmyk_profile(), progressive=True)
    cases["jpeg-cmyk-without-adobe"] = lambda: pictures.without_adobe(pictures.jpeg("CMYK", profile=icc.cmyk_profile()))
    cases["webp-rgba"] = partial(pictures.webp, "RGBA")
    cases["webp-animated"] = animated
    return cases


def animated() -> bytes:
    frames = [pictures.image("RGBA"), pictures.image("RGBA").rotate(180)]
    return pictures.saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)


CASES = _cases()


@cache
def picture(name: str) -> bytes:
    return CASES[name]()


def _reference(data: bytes) -> Any:
    image = pyvips.Image.new_from_buffer(data, "").autorot()
    if "icc-profile-data" in image.get_fields():
        options = {"intent": "relative", "black_point_compensation": True}
        if image.format == "ushort" and image.bands >= 3:
            # Converted directly, 16-bit colours are up to 11 levels off in libvips; by way of floats they are exact.
            image = image.icc_import(embedded=True, pcs="xyz", **options)
            image = image.icc_export(output_profile="srgb", pcs="xyz", depth=8, **options)
        else:
            image = image.icc_transform("srgb", embedded=True, depth=8, **options)
    else:
        image = image.colourspace("srgb")
    return image.flatten(background=list(MATTE)) if image.hasalpha() else image


@dataclass(frozen=True)
class Difference:
    """The difference of two pictures, in levels."""

    percentile: int
    worst: int

    @classmethod
    def between(cls, left: Image.Image, right: Image.Image) -> "Difference":
        assert left.size == right.size
        levels = sorted(ImageChops.difference(left, right).tobytes())
        return cls(levels[int(len(levels) * PERCENTILE) - 1], levels[-1])


def test_there_are_at_least_sixty_pictures() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", CASES)
def test_png_shows_what_libvips_shows(bench: Bench, name: str) -> None:
    bench.export(picture(name), ExportPlan(matte=MATTE), encodings=(PngEncoding(compression=1),))
    reference = _reference(picture(name))
    expected = Image.frombytes("RGB", (reference.width, reference.height), reference.write_to_memory())
    difference = Difference.between(bench.image(), expected)
    assert difference.percentile <= LEVELS, difference


@pytest.mark.parametrize("name", CASES)
def test_jpeg_and_webp_show_what_the_png_shows(bench: Bench, name: str) -> None:
    encodings = (PngEncoding(compression=1), JpegEncoding(quality=95, subsampling="4:4:4"), WebpEncoding(quality=95))
    bench.export(picture(name), ExportPlan(matte=MATTE), encodings=encodings)
    png, jpeg, webp = (pyvips.Image.new_from_buffer(bench.made(f), "") for f in ("png", "jpeg", "webp"))
    assert png.dE00(jpeg).avg() <= MEAN_DELTA_E_JPEG
    assert png.dE00(webp).avg() <= MEAN_DELTA_E_WEBP


@pytest.mark.parametrize(
    ("size", "levels"), [((160, 90), LEVELS), ((200, 200), LEVELS), ((300, 30), LEVELS), ((40, 20), 4)]
)
def test_a_smaller_picture_is_the_one_libvips_makes(size: tuple[int, int], levels: int) -> None:
    image = pictures.image("RGB", (480, 320))
    reference = pyvips.Image.new_from_memory(image.tobytes(), 480, 320, 3, "uchar")
    reference = reference.resize(size[0] / 480, vscale=size[1] / 320, kernel="lanczos3", gap=0)
    expected = Image.frombytes("RGB", size, reference.write_to_memory())
    difference = Difference.between(resize(image, size, "stretch", MATTE), expected)
    assert difference.percentile <= levels, difference
