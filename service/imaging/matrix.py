"""16-bit RGB from a matrix profile to sRGB, at full depth.

LittleCMS, as Pillow has it, takes 8 bits a channel. With a steep curve, or for a colour at the edge of sRGB, that is
several levels off. A matrix profile is simple enough to do without it: one curve for each channel takes samples to
linear light, and a matrix takes that to the linear light of sRGB.
"""

import struct
from functools import cache, lru_cache
from io import BytesIO
from typing import NamedTuple, cast

from PIL import Image, ImageCms, ImageMath

from service.imaging.decode import join_bytes
from service.imaging.icc import LINEAR, Tags, build_profile, curve_tag, read_tags, read_xyz

Vector = tuple[float, float, float]

_COLORANTS, _CURVES = (b"rXYZ", b"gXYZ", b"bXYZ"), (b"rTRC", b"gTRC", b"bTRC")
_LOOKUP_TABLES = (b"A2B", b"D2B")
_LEVELS = 65536

# Converted at once: few enough for images of 4 bytes a sample to stay small, enough to outweigh the lookup tables.
_STRIP_PIXELS = 1 << 19


class Curve(NamedTuple):
    """The linear light of each 16-bit level, in 16 bits: their upper and their lower bytes."""

    upper: list[int]
    lower: list[int]


class MatrixProfile(NamedTuple):
    """The curves of red, green and blue, and the rows of the matrix that makes linear light of sRGB of theirs."""

    curves: tuple[Curve, ...]
    rows: tuple[Vector, ...]


@lru_cache(maxsize=4)
def matrix_profile(profile: bytes, srgb: bytes) -> MatrixProfile | None:
    """None for a profile of another kind, one with lookup tables, or one whose black is not 0."""
    try:
        tags = read_tags(profile)
        if profile[16:24] != b"RGB XYZ " or any(name.startswith(_LOOKUP_TABLES) for name in tags):
            return None
        curves = tuple(_curve(tags[name]) for name in _CURVES)
        columns, inverse = _columns(tags), _inverse(*_columns(read_tags(srgb)))
    except (KeyError, OSError, ValueError, struct.error):
        return None
    if any(curve.upper[0] or curve.lower[0] for curve in curves):
        return None
    return MatrixProfile(curves, tuple(cast("Vector", tuple(_dot(row, each) for each in columns)) for row in inverse))


def convert_deep(upper: Image.Image, lower: Image.Image, profile: MatrixProfile) -> Image.Image:
    """An RGB or RGBA image in sRGB, of images of the upper and lower bytes of 16-bit samples; alpha is the upper's."""
    converted = upper.copy()
    step = max(1, _STRIP_PIXELS // upper.width)
    for top in range(0, upper.height, step):
        rows = (0, top, upper.width, min(top + step, upper.height))
        channels = zip(upper.crop(rows).split(), lower.crop(rows).split(), profile.curves, strict=False)
        lights = [_light(*channel) for channel in channels]
        strip = [_mixed(lights, row).point(_encoded(), "L") for row in profile.rows]
        converted.paste(Image.merge(upper.mode, (*strip, *upper.crop(rows).split()[3:])), rows)
    return converted


def _light(upper: Image.Image, lower: Image.Image, curve: Curve) -> Image.Image:
    """A channel as linear light: mode F, 0 to 65535."""
    samples = join_bytes(upper, lower).convert("I")
    return join_bytes(samples.point(curve.upper, "L"), samples.point(curve.lower, "L")).convert("I").convert("F")


def _mixed(lights: list[Image.Image], row: Vector) -> Image.Image:
    """One channel of sRGB: mode I, rounded, beyond 0 to 65535 for colours that sRGB does not have."""
    red, green, blue = row
    mixed: Image.Image = ImageMath.lambda_eval(
        lambda of: of["int"](of["r"] * red + of["g"] * green + of["b"] * blue + 0.5),
        **dict(zip("rgb", lights, strict=True)),
    )
    return mixed


@cache
def _encoded() -> list[int]:
    """The sRGB level of each 16-bit level of linear light (IEC 61966-2-1)."""
    lights = (level / (_LEVELS - 1) for level in range(_LEVELS))
    return [round(255 * (12.92 * x if x <= 0.0031308 else 1.055 * x ** (1 / 2.4) - 0.055)) for x in lights]


def _curve(tag: bytes | memoryview) -> Curve:
    """LittleCMS evaluates a curve of any kind, as that of a grey profile; raises OSError, ValueError if it cannot."""
    profiles = (build_profile(b"GRAY", {b"kTRC": curve}) for curve in (tag, curve_tag(LINEAR)))
    source, target = (ImageCms.ImageCmsProfile(BytesIO(profile)) for profile in profiles)
    flags = ImageCms.Flags.NOOPTIMIZE
    transform = ImageCms.ImageCmsTransform(
        source, target, "I;16", "I;16", ImageCms.Intent.RELATIVE_COLORIMETRIC, flags=flags
    )
    ramp = Image.frombytes("I;16", (_LEVELS, 1), struct.pack(f"<{_LEVELS}H", *range(_LEVELS)))
    light = transform.apply(ramp).tobytes()
    return Curve(list(light[1::2]), list(light[::2]))


def _columns(tags: Tags) -> tuple[Vector, ...]:
    """The columns of the matrix from linear light to XYZ: the colorants."""
    return tuple(read_xyz(tags[name]) for name in _COLORANTS)


def _inverse(a: Vector, b: Vector, c: Vector) -> tuple[Vector, ...]:
    """The rows of the inverse of the matrix of these columns."""
    crosses = (_cross(b, c), _cross(c, a), _cross(a, b))
    determinant = _dot(a, crosses[0])
    return tuple((x / determinant, y / determinant, z / determinant) for x, y, z in crosses)


def _cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
