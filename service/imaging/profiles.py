"""ICC profiles: the one that every export carries, and the way there from any other."""

from functools import cache, lru_cache
from io import BytesIO

from PIL import Image, ImageCms

INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION

# The colour space a profile speaks of -> the mode of the images it describes.
_MODES = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK"}


class ProfileError(Exception):
    """The embedded profile is broken, or not one for this kind of picture."""


@cache
def srgb() -> bytes:
    """The sRGB profile; always the same bytes, though LittleCMS writes the time into it."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes.fromhex("07d0 0001 0001 0000 0000 0000")
    return bytes(profile)


@lru_cache(maxsize=4)
def transform_to_srgb(profile: bytes, alpha: bool) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """The image mode that `profile` describes and the way from there to sRGB, None if it would change nothing.

    With `alpha` an RGB profile is for RGBA images. Raises ProfileError.
    """
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        target = ImageCms.ImageCmsProfile(BytesIO(srgb()))
        mode = _MODES[source.profile.xcolor_space]
        suffix = "A" if alpha and mode == "RGB" else ""
        transform = ImageCms.ImageCmsTransform(source, target, mode + suffix, "RGB" + suffix, INTENT, flags=FLAGS)
    except (OSError, KeyError, ImageCms.PyCMSError):
        raise ProfileError from None
    return mode, None if mode == "RGB" and _changes_nothing(transform) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether no colour of a coarse cube moves by more than one level, as for an sRGB profile by any name."""
    levels = range(0, 256, 15)
    cube = Image.new("RGB", (len(levels) ** 2, len(levels)))
    cube.putdata([(r, g, b) for r in levels for g in levels for b in levels])
    return False
