"""Composite: the exact weighted mean of a picture and its base."""

from PIL import Image


def composite(picture: Image.Image, base: Image.Image, share: int) -> Image.Image:
    """Blend two RGB images of one size; `share`, in ten-thousandths, is the picture's part."""
    return Image.blend(base, picture, share / 10_000)
