"""ICC profiles: the sRGB profile of JPEG and WebP exports, and the conversion from other profiles to sRGB.

The rendering intent is relative colorimetric with black point compensation: colours within sRGB stay as they are, and
the darkest colour of a profile becomes the black of sRGB.
"""

import itertools
from collections.abc import Callable
from functools import cache, lru_cache
from io import BytesIO

from PIL import Image, ImageChops, ImageCms

from service.imaging.decode import join_bytes, split_bytes
from service.imaging.icc import build_profile, read_tags, text_tag
from service.imaging.matrix import convert_deep, matrix_profile

_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION

_COLOURS = (b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC")

# Rows converted at once: few, so that the intermediate images stay small.
_ROWS = 64

Lower = Callable[[], Image.Image | None]


class ProfileError(Exception):
    """The profile is broken, or does not fit the mode of the image."""


@cache
def srgb() -> bytes:
    """The smallest sRGB profile with every tag that ICC.1 requires, in the colours of LittleCMS's own.

    Its description is its copyright notice too: the same bytes serve for both.
    """
    tags = read_tags(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    texts = dict.fromkeys((b"desc", b"cprt"), text_tag("sRGB"))
    return build_profile(b"RGB ", texts | {name: bytes(tags[name]) for name in _COLOURS})


def convert(image: Image.Image, profile: bytes, lower: Lower | None = None) -> Image.Image:
    """Convert an image in L, LA, I;16, RGB, RGBA or CMYK from `profile` to sRGB; raises ProfileError.

    A grey image stays grey; with an RGB profile its level is that of all three channels. `lower` loads the lower bytes
    of an LA, RGB or RGBA image of 16-bit samples: where a curve is steep, one step of the upper bytes is many levels of
    sRGB.
    """
    match _space(profile), image.mode:
        case "GRAY", "I;16":
            return _leveled(image, profile)
        case "GRAY", "LA" if lower and (low := lower()):
            grey, alpha = image.split()
            return Image.merge("LA", (_leveled(join_bytes(grey, low), profile), alpha))
        case "GRAY", "L" | "LA":
            return image.point(_grey_levels(profile, "L") + list(range(256)) * (len(image.mode) - 1))
        case ("CMYK", "CMYK") | ("RGB ", "RGB" | "RGBA"):
            return _transformed(image, profile, lower)
        case "RGB ", "I;16":
            upper, low = split_bytes(image)
            return _transformed(upper.convert("RGB"), profile, _in_mode("RGB", lambda: low))
        case "RGB ", "L" | "LA":
            mode = "RGB" if image.mode == "L" else "RGBA"
            return _transformed(image.convert(mode), profile, _in_mode(mode, lower))
    raise ProfileError


def _in_mode(mode: str, lower: Lower | None) -> Lower:
    """The lower bytes of a grey image for all channels of an RGB or RGBA image."""
    return lambda: low.convert(mode) if lower and (low := lower()) else None


def _space(profile: bytes) -> str:
    try:
        return ImageCms.ImageCmsProfile(BytesIO(profile)).profile.xcolor_space
    except (OSError, ValueError):
        raise ProfileError from None


def _transformed(image: Image.Image, profile: bytes, lower: Lower | None = None) -> Image.Image:
    transform = _transform(profile, image.mode)
    if transform is None:
        return image
    low = lower() if lower else None
    if low is None:
        converted = transform.apply(image)
    elif matrix := matrix_profile(profile, srgb()):
        converted = convert_deep(image, low, matrix)
    else:
        converted = _interpolated(image, low, transform)
    converted.info.clear()
    return converted


def _interpolated(upper: Image.Image, lower: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    """The transform of 16-bit samples, interpolated between its results for the 8-bit levels around them.

    A sample is upper + (lower - upper) / 257 levels. It is rounded at four thresholds, so the nearer the next level,
    the more of the four roundings go there. The mean of the four results is a tetrahedral interpolation.
    """
    converted = Image.new(upper.mode, upper.size)
    for top in range(0, upper.height, _ROWS):
        rows = (0, top, upper.width, min(top + _ROWS, upper.height))
        high, low = upper.crop(rows), lower.crop(rows)
        more, less = ImageChops.subtract(low, high), ImageChops.subtract(high, low)
        a, b, c, d = (
            transform.apply(ImageChops.subtract(ImageChops.add(high, more.point(up)), less.point(down)))
            for up, down in _thresholds(upper.mode)
        )
        # Each of the three halvings truncates; the 1 added before the last one compensates.
        converted.paste(ImageChops.add(ImageChops.add(a, b, 2), ImageChops.add(c, d, 2, 1), 2), rows)
    return converted


@cache
def _thresholds(mode: str) -> list[tuple[list[int], list[int]]]:
    """For each of the four roundings, tables of the differences that go a level up, and a level down; never alpha."""
    alpha = [0] * 256 * (mode == "RGBA")
    return [
        (
            [int(level >= 257 * (1 - offset)) for level in range(256)] * 3 + alpha,
            [int(level > 257 * offset) for level in range(256)] * 3 + alpha,
        )
        for offset in (0.125, 0.375, 0.625, 0.875)
    ]


def _leveled(image: Image.Image, profile: bytes) -> Image.Image:
    return image.convert("I").point(_grey_levels(profile, "I;16"), "L")


@lru_cache(maxsize=4)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform to sRGB for images of `mode`; None if it would change nothing."""
    transform = _build(profile, mode, "RGBA" if mode == "RGBA" else "RGB", _FLAGS)
    return None if mode != "CMYK" and _changes_nothing(transform, mode) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether no colour of a coarse cube moves by more than one level: then the profile is sRGB, whatever its name."""
    cube = bytes(itertools.chain.from_iterable(itertools.product(range(0, 256, 15), repeat=3)))
    image = Image.frombytes("RGB", (len(cube) // 3, 1), cube).convert(mode)
    return max(ImageChops.difference(image, transform.apply(image)).tobytes()) <= 1


@lru_cache(maxsize=4)
def _grey_levels(profile: bytes, mode: str) -> list[int]:
    """The sRGB level of each level of a grey image, without the coarse tables by which LittleCMS optimizes."""
    if mode == "I;16":
        ramp = Image.frombytes(mode, (65536, 1), b"".join(level.to_bytes(2, "little") for level in range(65536)))
    else:
        ramp = Image.frombytes(mode, (256, 1), bytes(range(256)))
    transform = _build(profile, mode, "RGB", _FLAGS | ImageCms.Flags.NOOPTIMIZE)
    return list(transform.apply(ramp).getchannel("G").tobytes())


def _build(profile: bytes, mode: str, to_mode: str, flags: ImageCms.Flags) -> ImageCms.ImageCmsTransform:
    source, target = (ImageCms.ImageCmsProfile(BytesIO(data)) for data in (profile, srgb()))
    try:
        return ImageCms.ImageCmsTransform(source, target, mode, to_mode, _INTENT, flags=flags)
    except (OSError, ValueError):
        raise ProfileError from None
