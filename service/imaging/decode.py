"""Decode: the pixels of a probed file."""

from functools import reduce
from importlib import import_module
from io import BytesIO

from PIL import Image, ImageChops, ImageFile
from zlib_ng import zlib_ng

from service.imaging.containers.animation import Cel
from service.imaging.containers.container import Container
from service.imaging.containers.png import END, GREY, GREY_ALPHA, png_chunk, png_chunks
from service.imaging.errors import Undecodable
from service.imaging.formats import TABLE
from service.imaging.frame import Size

# Importing a plugin registers it. To find one that is not registered, Pillow would import all of its plugins.
for _row in TABLE.values():
    import_module(f"PIL.{_row.plugin}")

# The most that is inflated into memory at once: enough for what Gemini draws at 2K and below.
_INFLATED_BYTES = 1 << 24

# Rows compared at once: few, so that their copies stay small.
_ROWS = 64

# Raw modes by which Pillow reads the upper bytes of 16-bit samples -> those that read the lower bytes instead.
_LOWER = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}


def decode(container: Container) -> Image.Image:
    """The pixels as stored, in mode L, LA, I;16, RGB, RGBA or CMYK; of an animation, the first frame.

    16-bit samples are whole in I;16 only; in the other modes these are their upper bytes. Raises Undecodable.
    """
    if container.first:
        return _on_canvas(container.first, container.size)
    return _normal_mode(_loaded(container), container)


def _on_canvas(cel: Cel, canvas: Size) -> Image.Image:
    """The first frame of a GIF on its canvas, transparent around it; pixels beyond the canvas are cut off."""
    image = decode(cel.still()) if all(cel.size) else Image.new("RGBA", cel.size)
    if cel.box == (0, 0, *canvas):
        return image
    on_canvas = Image.new("RGBA", canvas)
    on_canvas.paste(image, cel.box)
    return on_canvas


def decode_lower(container: Container) -> Image.Image | None:
    """The lower bytes of 16-bit samples of which `decode` gives the upper ones, in L for LA, else in the same mode.

    None if there are none. Raises Undecodable.
    """
    if container.depth < 16 or (container.colour == GREY and not container.transparent):
        return None
    if container.colour == GREY:
        return split_bytes(_loaded(container))[1]
    loaded = _loaded(container, lower=True)
    image = loaded._new(loaded.im)
    if container.colour == GREY_ALPHA:
        # Read as RGBA, a pixel is the upper and lower byte of its grey, then of its alpha.
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
        # For broken files Pillow's plugins raise almost any class, with messages for programmers.
        raise _broken(container) from None
    return image


def _broken(container: Container) -> Undecodable:
    return Undecodable(f"the {TABLE[container.format].label} picture is broken or cut")


def _same(one: Image.Image, other: Image.Image) -> bool:
    """Compared by strips, so that not all pixels are copied at once."""
    strips = ((0, top, one.width, min(top + _ROWS, one.height)) for top in range(0, one.height, _ROWS))
    return all(one.crop(strip).tobytes() == other.crop(strip).tobytes() for strip in strips)


def _inflated(container: Container) -> bytes:
    """The file, but a PNG with its pixel data inflated: zlib-ng does that twice as fast as Pillow's zlib.

    Where there is too much data, or it is cut or broken, the file is unchanged, and Pillow decides about it.
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


def _normal_mode(image: Image.Image, container: Container) -> Image.Image:
    """The image in one of the modes that `decode` names, without metadata."""
    if container.palette:
        return _coloured(image._new(image.im), container.palette)
    palette_alpha = image.info.get("transparency") if image.mode == "P" else None
    # A new image around the same pixels frees the decoder, whose buffers can be as large as they are.
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
        image = _with_transparent_colour(image, container.transparent, container)
    image.info.clear()
    return image


def _coloured(indices: Image.Image, palette: bytes) -> Image.Image:
    """RGB, or RGBA where a colour of the palette is transparent, from indices in mode L."""
    indices.info.clear()
    indices.putpalette(palette, "RGBA")
    return indices.convert("RGB" if min(palette[3::4]) == 255 else "RGBA")


def _with_transparent_colour(image: Image.Image, key: tuple[int, ...], container: Container) -> Image.Image:
    """LA or RGBA, fully transparent where a pixel equals `key`, which is in samples of the container's depth."""
    highest = 2**container.depth - 1
    key = tuple(level & highest for level in key)
    if image.mode == "I;16":
        alpha = image.convert("I").point([0 if level == key[0] else 255 for level in range(65536)], "L")
        # With a profile these are upper bytes, as `decode_lower` gives the lower ones.
        return Image.merge("LA", (split_bytes(image)[0] if container.profile else narrow(image), alpha))
    if image.mode == "L":
        return Image.merge("LA", (image, ImageChops.invert(_equal(image, key[0] * 255 // highest))))
    bands, levels = image.split(), key
    if container.depth == 16:
        bands += _loaded(container, lower=True).split()
        levels = (*(level >> 8 for level in key), *(level & 255 for level in key))
    equal = reduce(ImageChops.darker, map(_equal, bands, levels))
    return Image.merge("RGBA", (*image.split(), ImageChops.invert(equal)))


def _equal(band: Image.Image, level: int) -> Image.Image:
    """255 where the band has that level, else 0."""
    return band.point([255 if value == level else 0 for value in range(256)])


def narrow(image: Image.Image) -> Image.Image:
    """I;16 scaled to L and rounded; Pillow's own conversion clips instead."""
    return image.convert("I").point([(level * 255 + 32767) // 65535 for level in range(65536)], "L")


def join_bytes(upper: Image.Image, lower: Image.Image) -> Image.Image:
    """An I;16 image of its upper and lower bytes, in mode L."""
    return Image.frombytes("I;16", upper.size, Image.merge("LA", (lower, upper)).tobytes())


def split_bytes(image: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The upper and lower bytes of an I;16 image, in mode L."""
    lower, upper = Image.frombytes("LA", image.size, image.tobytes()).split()
    return upper, lower
