"""Decode: a file that was looked into becomes pixels."""

from importlib import import_module
from io import BytesIO

from PIL import Image, ImageFile
from zlib_ng import zlib_ng

from service.imaging.containers.container import Container
from service.imaging.containers.png import END, GREY, GREY_ALPHA, png_chunk, png_chunks
from service.imaging.errors import Undecodable
from service.imaging.formats import TABLE

# Importing a plugin registers it; to look for one that is not, Pillow would import all of them.
for _row in TABLE.values():
    import_module(f"PIL.{_row.plugin}")

# Of rows: what a worker inflates at once, most of what Gemini draws at 2K and smaller.
_INFLATED_BYTES = 1 << 24

# Few enough for their bytes to stay small.
_ROWS = 64

# How Pillow unpacks 16-bit samples of several channels, losing their lower bytes -> how to have it unpack those.
_LOWER = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}


def decode(container: Container) -> Image.Image:
    """The pixels as stored, as L, LA, I;16, RGB, RGBA or CMYK, of an animation the first frame; raises Undecodable.

    Of 16-bit samples only grey ones without alpha are whole; of the others these are the upper bytes.
    """
    return _plain(_loaded(container), container)


def decode_lower(container: Container) -> Image.Image | None:
    """The lower bytes where `decode` gives upper ones only: L for LA, else of the same mode; None elsewhere."""
    if container.depth < 16 or container.colour == GREY:
        return None
    loaded = _loaded(container, lower=True)
    image = loaded._new(loaded.im)
    if container.colour == GREY_ALPHA:
        # The four bytes of a pixel are its grey, upper and lower, and its alpha.
        return image.getchannel("G")
    return image.convert("RGBA") if container.transparent else image


def _loaded(container: Container, *, lower: bool = False) -> ImageFile.ImageFile:
    ending, *others = container.endings
    image = _opened(container, ending, lower=lower)
    for other in others:
        if not _same(image, _opened(container, other, lower=lower)):
            raise _broken(container)
    return image


def _opened(container: Container, ending: bytes, *, lower: bool) -> ImageFile.ImageFile:
    try:
        image = Image.open(BytesIO(_inflated(container) + ending), formats=[TABLE[container.format].pillow])
        if image.size != container.size:
            raise Undecodable(f"the {TABLE[container.format].label} picture contradicts its own header")
        if lower:
            image.tile = [tile._replace(args=_LOWER[str(tile.args)]) for tile in image.tile]
        image.load()
    except (MemoryError, Undecodable):
        raise
    except Exception:
        # Pillow's plugins raise nearly anything for a broken file, and their words are for programmers.
        raise _broken(container) from None
    return image


def _broken(container: Container) -> Undecodable:
    return Undecodable(f"the {TABLE[container.format].label} picture is broken or cut")


def _same(one: Image.Image, other: Image.Image) -> bool:
    """Compared by rows, so that no copy of all pixels is made."""
    strips = ((0, top, one.width, min(top + _ROWS, one.height)) for top in range(0, one.height, _ROWS))
    return all(one.crop(strip).tobytes() == other.crop(strip).tobytes() for strip in strips)


def _inflated(container: Container) -> bytes:
    """A PNG with its rows stored: zlib-ng inflates them in half the time of the zlib that Pillow has.

    Where they are too many, cut or broken it is the file as it is, about which Pillow decides.
    """
    png = container.data
    if container.format != "png" or 3 * container.size[0] * container.size[1] > _INFLATED_BYTES:
        return png
    chunks = list(png_chunks(png))
    deflated = b"".join(chunk[8:-4] for kind, chunk in chunks if kind == b"IDAT")
    inflate = zlib_ng.decompressobj()
    try:
        rows = inflate.decompress(deflated, _INFLATED_BYTES)
    except zlib_ng.error:  # type: ignore[misc]  # its stub takes the class for an instance
        return png
    if not inflate.eof:
        return png
    before = (chunk for kind, chunk in chunks if kind not in (b"IDAT", b"IEND"))
    return b"".join((png[:8], *before, png_chunk(b"IDAT", zlib_ng.compress(rows, 0)), END))


def _plain(image: Image.Image, container: Container) -> Image.Image:
    """One of the few modes that the steps know, and nothing but pixels."""
    palette_alpha = image.info.get("transparency") if image.mode == "P" else None
    # A copy that shares the pixels lets go of the decoder, whose own buffers can be as large.
    image = image._new(image.im)
    image.info.clear()
    if image.mode == "P":
        if palette_alpha is not None:
            image.info["transparency"] = palette_alpha
        image = image.convert("RGB" if palette_alpha is None else "RGBA")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode == "RGBA" and container.colour == GREY_ALPHA:
        image = Image.merge("LA", (image.getchannel("R"), image.getchannel("A")))
    if container.transparent:
        image = _keyed(image, container.transparent, container.depth)
    image.info.clear()
    return image


def _keyed(image: Image.Image, key: tuple[int, ...], depth: int) -> Image.Image:
    """LA or RGBA: fully transparent where the pixel is `key`, given in samples of `depth` bits."""
    highest = 2**depth - 1
    key = tuple(level & highest for level in key)
    if image.mode == "I;16":
        alpha = image.convert("I").point([0 if level == key[0] else 255 for level in range(65536)], "L")
        return Image.merge("LA", (narrow(image), alpha))
    if image.mode == "L":
        level = key[0] * 255 // highest
        return Image.merge("LA", (image, image.point([0 if value == level else 255 for value in range(256)])))
    # Pillow keeps only the upper half of 16-bit colours, so the key is matched by that.
    image.info["transparency"] = tuple(level >> (depth - 8) for level in key)
    return image.convert("RGBA")


def narrow(image: Image.Image) -> Image.Image:
    """I;16 scaled to L, rounded; Pillow's own conversion clips."""
    return image.convert("I").point([(level * 255 + 32767) // 65535 for level in range(65536)], "L")
