"""Normalize: the steps that turn a picture upright, convert it to sRGB, flatten transparency and resize."""

from PIL import Image

from service.imaging.decode import narrow
from service.imaging.focus import Crop, cover_box
from service.imaging.frame import Size
from service.imaging.plan import Fit
from service.imaging.profiles import Lower, convert

Colour = tuple[int, int, int]

# From a reduction by six on, Pillow averages blocks of pixels first, which saves most of the time. It moves levels of
# photographs by three at most, of black and white noise by 18.
REDUCING_GAP = 3.0

_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn and mirror by the Exif `orientation`, 1 to 8."""
    return image.transpose(_TO_UPRIGHT[orientation]) if orientation in _TO_UPRIGHT else image


def to_srgb(image: Image.Image, profile: bytes | None, lower: Lower | None = None) -> Image.Image:
    """An RGB or RGBA image in sRGB, from L, LA, I;16, RGB, RGBA or CMYK in `profile`; raises ProfileError.

    Without a profile RGB and grey are taken for sRGB, as in libvips and Pillow: the gAMA and cHRM chunks of old PNGs
    repeat that or are wrong. CMYK is converted as browsers do: (1 - ink) * (1 - black) for each channel. `lower` loads
    the lower bytes of 16-bit samples.
    """
    if profile is not None:
        image = convert(image, profile, lower)
    if image.mode == "I;16":
        image = narrow(image)
    if image.mode in ("RGB", "RGBA"):
        return image
    return image.convert("RGBA" if image.mode == "LA" else "RGB")


def flatten(image: Image.Image, matte: Colour) -> Image.Image:
    """An RGB image: `image` composited over the colour `matte`."""
    if image.mode == "RGB":
        return image
    flat = Image.new("RGB", image.size, matte)
    flat.paste(image, (0, 0), image)
    return flat


def resize(image: Image.Image, size: Size, fit: Fit, matte: Colour, crop: Crop = None) -> Image.Image:
    """Exactly `size`: cover crops around a focus or to a box, contain pads with `matte`, stretch distorts."""
    if image.size == size:
        return image
    if fit == "contain":
        return _contained(image, size, matte)
    box = cover_box(image, size, crop) if fit == "cover" else None
    return image.resize(size, Image.Resampling.LANCZOS, box, reducing_gap=REDUCING_GAP)


def _contained(image: Image.Image, size: Size, matte: Colour) -> Image.Image:
    scale = min(size[0] / image.width, size[1] / image.height)
    width = min(size[0], max(1, round(image.width * scale)))
    height = min(size[1], max(1, round(image.height * scale)))
    canvas = Image.new(image.mode, size, matte)
    inner = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=REDUCING_GAP)
    canvas.paste(inner, ((size[0] - width) // 2, (size[1] - height) // 2))
    return canvas
