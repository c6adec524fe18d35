"""What a picture's file says before it is decoded, and the file without what its decoder does not need."""

import struct

from service.imaging.containers.container import Container
from service.imaging.containers.jpeg import read_jpeg
from service.imaging.containers.png import read_png
from service.imaging.containers.webp import read_webp
from service.imaging.errors import TooManyPixels, Undecodable, UnsupportedType
from service.imaging.formats import TABLE, sniff

__all__ = ["Container", "look_into"]

_READERS = {"png": read_png, "jpeg": read_jpeg, "webp": read_webp}


def look_into(data: bytes, max_pixels: int) -> Container:
    """Read a file's headers; raises UnsupportedType, Undecodable, TooManyPixels or TooCostly."""
    name = sniff(data)
    if name is None:
        raise UnsupportedType("the file is not a PNG, JPEG or WebP picture")
    try:
        container = _READERS[name](data)
    except (struct.error, IndexError):
        raise Undecodable(f"the {TABLE[name].label} picture is cut within its header") from None
    width, height = container.size
    if width < 1 or height < 1:
        raise Undecodable(f"the {TABLE[name].label} picture has no size")
    if width * height > max_pixels:
        raise TooManyPixels(
            f"the picture is {width} x {height}, {width * height:,} pixels; at most {max_pixels:,} are allowed"
        )
    return container
