"""Pillow, libvips and Chromium read the same colours from every format, each of which says sRGB in its own way."""

import base64
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
import pyvips
from PIL import Image, ImageChops, ImageCms

from service.imaging.encode import encode
from service.imaging.formats import AvifEncoding, Encoding, JpegEncoding, PngEncoding, WebpEncoding
from service.imaging.icc import build_profile, read_tags
from service.imaging.profiles import srgb
from tests.handlers.browser import Tab, opened
from tests.imaging import icc

ENCODINGS: list[Encoding] = [
    PngEncoding(),
    PngEncoding(palette=True),
    JpegEncoding(100, subsampling="4:4:4"),
    WebpEncoding(lossless=True),
    AvifEncoding(100),
]
ROUNDING = 4  # levels, of JPEG and AVIF at quality 100

# The pixels of a picture as a page sees them: Chromium converts them to the sRGB of the canvas.
PIXELS = """(async () => {
  const image = new Image();
  image.src = "data:image/%s;base64,%s";
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.width, canvas.height = image.height;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return btoa(String.fromCharCode(...context.getImageData(0, 0, image.width, image.height).data));
})()"""


def card() -> Image.Image:
    """64 patches of 8 x 8 pixels, in all corners of sRGB."""
    image = Image.new("RGB", (64, 64))
    for patch in range(64):
        left, top = patch % 8 * 8, patch // 8 * 8
        image.paste((patch % 4 * 85, patch // 4 % 4 * 85, patch // 16 * 85), (left, top, left + 8, top + 8))
    return image


def display_p3() -> bytes:
    """The profile of the exports, but with the primaries of Display P3."""
    wide = read_tags(icc.DISPLAY_P3)
    return build_profile(b"RGB ", {**read_tags(srgb()), **{name: wide[name] for name in (b"rXYZ", b"gXYZ", b"bXYZ")}})


def saved(kind: str, profile: bytes) -> bytes:
    file = BytesIO()
    card().save(file, kind, quality=100, subsampling=0, lossless=True, exact=True, icc_profile=profile)
    return file.getvalue()


def by_pillow(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    if not (profile := image.info.get("icc_profile")):
        return image.convert("RGB")
    to = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(BytesIO(profile)), to)
    assert converted
    return converted


def by_libvips(data: bytes) -> Image.Image:
    image = pyvips.Image.new_from_buffer(data, "", fail_on="warning")
    if "icc-profile-data" in image.get_fields():
        image = image.icc_transform("srgb", embedded=True)
    pixels = image.colourspace("srgb").cast("uchar").write_to_memory()
    return Image.frombytes("RGB", (image.width, image.height), bytes(pixels))


async def by_chromium(tab: Tab, kind: str, data: bytes) -> Image.Image:
    pixels = base64.b64decode(await tab.run(PIXELS % (kind, base64.b64encode(data).decode())))
    return Image.frombytes("RGBA", card().size, pixels).convert("RGB")


def difference(image: Image.Image, other: Image.Image) -> int:
    return max(ImageChops.difference(image, other).tobytes())


def tolerance(encoding: Encoding) -> int:
    return ROUNDING if encoding.format in ("jpeg", "avif") else 0


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("read", [by_pillow, by_libvips])
def test_a_program_reads_the_same_colours_from_every_format(
    read: Callable[[bytes], Image.Image], encoding: Encoding
) -> None:
    assert difference(read(encode(card(), encoding, (0, 0, 0))), card()) <= tolerance(encoding)


async def test_a_browser_shows_the_same_colours_from_every_format(tmp_path: Path) -> None:
    async with opened("about:blank", tmp_path) as tab:
        for encoding in ENCODINGS:
            data = encode(card(), encoding, (0, 0, 0))
            shown = await by_chromium(tab, encoding.format, data)
            assert difference(shown, card()) <= tolerance(encoding), encoding


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
async def test_every_reader_heeds_a_profile_of_this_shape(kind: str, tmp_path: Path) -> None:
    wide = saved(kind, display_p3())
    assert difference(by_pillow(wide), card()) > 80
    assert difference(by_libvips(wide), card()) > 80
    async with opened("about:blank", tmp_path) as tab:
        assert difference(await by_chromium(tab, kind.lower(), wide), card()) > 80


def test_the_profile_has_a_name_and_fits_every_use() -> None:
    profile = ImageCms.ImageCmsProfile(BytesIO(srgb()))
    assert ImageCms.getProfileDescription(profile).strip() == "sRGB"
    assert ImageCms.isIntentSupported(profile, ImageCms.Intent.PERCEPTUAL, ImageCms.Direction.INPUT) == 1


def test_an_avif_has_the_code_points_of_srgb_in_full_range_and_no_profile() -> None:
    data = encode(card(), AvifEncoding(), (0, 0, 0))
    assert b"colrnclx\0\x01\0\x0d\0\x06\x80" in data
    assert data.count(b"colr") == 1
