"""Compose: the frames of an animation as a browser shows them."""

from collections.abc import Iterator

from PIL import Image

from service.imaging.containers.animation import Animation, Cel
from service.imaging.decode import decode, narrow
from service.imaging.errors import Undecodable
from service.imaging.frame import Box, Size
from service.imaging.normalize import to_srgb

_OPAQUE = ("L", "RGB")
_TRANSPARENT = {"L": "LA", "LA": "LA", "RGB": "RGBA", "RGBA": "RGBA"}


def composed(animation: Animation, profile: bytes | None = None) -> Iterator[Image.Image]:
    """Each frame of an animation in sRGB, of the size of its canvas, one after the other: RGBA, or RGB if it is opaque.

    The colours are converted from `profile` when the frame is complete, as Chromium does. A frame is not changed after
    it was yielded. Raises Undecodable; and ProfileError, before the first frame, where the profile is unusable.
    """
    if animation.fault:
        raise Undecodable(animation.fault)
    canvas: Image.Image | None = None
    for cel in animation.cels:
        image = _image(cel)
        before = canvas or Image.new(_TRANSPARENT[image.mode], animation.canvas)
        canvas = _drawn(before, cel, image)
        yield to_srgb(canvas, profile)
        if cel.disposal == "previous":
            canvas = before
        elif cel.disposal == "background":
            canvas = _cleared(canvas, cel)


def _image(cel: Cel) -> Image.Image:
    """The cel itself, in L, LA, RGB or RGBA, of which 16-bit samples are rounded; transparent if it has no pixels."""
    if not all(cel.size):
        return Image.new("RGBA", cel.size)
    image = decode(cel.still())
    return narrow(image) if image.mode == "I;16" else image


def _drawn(canvas: Image.Image, cel: Cel, image: Image.Image) -> Image.Image:
    """The canvas with the image of a cel; what reaches beyond it is cut off."""
    box = _visible(cel, canvas.size)
    if box is None:
        return canvas
    if box != cel.box:
        image = image.crop((0, 0, box[2] - box[0], box[3] - box[1]))
    replaces = image.mode in _OPAQUE or not cel.blends
    if image.size == canvas.size and replaces:
        return image
    if replaces:
        drawn = canvas.copy() if image.mode in _OPAQUE else _transparent(canvas)
        drawn.paste(image, box)
    elif canvas.mode in _OPAQUE:
        drawn = canvas.copy()
        drawn.paste(image, box, image)
    else:
        drawn = canvas.copy()
        drawn.alpha_composite(image, box[:2])
    return drawn


def _cleared(canvas: Image.Image, cel: Cel) -> Image.Image:
    box = _visible(cel, canvas.size)
    if box is None:
        return canvas
    cleared = _transparent(canvas)
    cleared.paste(0, box)
    return cleared


def _transparent(canvas: Image.Image) -> Image.Image:
    """A copy that can be transparent."""
    mode = _TRANSPARENT[canvas.mode]
    return canvas.copy() if canvas.mode == mode else canvas.convert(mode)


def _visible(cel: Cel, canvas: Size) -> Box | None:
    """The part of a cel's rectangle that lies on the canvas."""
    left, top, right, bottom = cel.box
    box = left, top, min(right, canvas[0]), min(bottom, canvas[1])
    return box if box[0] < box[2] and box[1] < box[3] else None
