"""Decode: a file that was looked into becomes pixels."""

from io import BytesIO

from PIL import Image, ImageChops, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from service.imaging.containers import Container
from service.imaging.errors import Undecodable
from service.imaging.formats import Format

# The classes themselves, because Image.open may choose another one: an MPO for some JPEGs.
_PLUGINS: dict[Format, type[ImageFile.ImageFile]] = {
    "png": PngImageFile,
    "jpeg": JpegImageFile,
    "webp": WebPImageFile,
}


def decode(container: Container) -> Image.Image:
    """The pixels as stored, as L, LA, RGB, RGBA or CMYK, of an animation the first frame; raises Undecodable."""
    try:
        image: Image.Image = _PLUGINS[container.format](BytesIO(container.data))
        if image.size != container.size:
            raise Undecodable(f"the {container.format.upper()} picture contradicts its own header")
        image.load()
    except (MemoryError, Undecodable):
        raise
    except Exception:
        # Pillow's plugins raise nearly anything for a broken file, and their words are for programmers.
        raise Undecodable(f"the {container.format.upper()} picture is broken or cut") from None
    return _plain(image, container)


def _plain(image: Image.Image, container: Container) -> Image.Image:
    transparency = image.info.get("transparency")
    # A plain image lets go of the file and the decoder, whose buffers can be as large as the pixels.
    image = image._new(image.im)
    image.info.clear()
    if image.mode == "P":
        if transparency is not None:
            image.info["transparency"] = transparency
            image = image.convert("RGBA")
        else:
            image = image.convert("RGB")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode == "I;16":
        image = image.point([level // 256 for level in range(65536)], "L")
    elif image.mode == "CMYK" and not container.inverted:
        # Pillow takes every CMYK JPEG for Adobe's.
        image = ImageChops.invert(image)
    if container.transparent:
        image.info["transparency"] = container.transparent
        image = image.convert("LA" if image.mode == "L" else "RGBA")
    image.info.clear()
    return image
