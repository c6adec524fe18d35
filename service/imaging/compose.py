"""Compose: the frames of an animation as a browser shows them."""

from collections.abc import Iterator

from PIL import Image

from service.imaging.containers.animation import Animation, Box, Cel
from service.imaging.decode import decode, decode_lower
from service.imaging.errors import Undecodable
from service.imaging.frame import Size
from service.imaging.normalize import to_srgb


def composed(animation: Animation, profile: bytes | None = None) -> Iterator[Image.Image]:
    """Each frame of an animation in sRGB, of the size of its canvas, one after the other: RGBA, or RGB if it is opaque.

    The colours of each cel are converted from `profile` before it is drawn, as browsers do. A frame is not changed
    after it was yielded. Raises Undecodable; and ProfileError, before the first frame, where the profile is unusable.
    """
    if animation.fault:
        raise Undecodable(animation.fault)
    canvas = Image.new("RGBA", animation.canvas)
    for cel in animation.cels:
        before = canvas
        canvas = _drawn(canvas, cel, _image(cel, profile))
        yield canvas
        if cel.disposal == "previous":
            canvas = before
        elif cel.disposal == "background":
            canvas = _cleared(canvas, cel)


def _image(cel: Cel, profile: bytes | None) -> Image.Image:
    """The cel itself, in RGB or RGBA."""
    still = cel.still()
    return to_srgb(decode(still), profile, lambda: decode_lower(still))


def _drawn(canvas: Image.Image, cel: Cel, image: Image.Image) -> Image.Image:
    """The canvas with the image of a cel; what reaches beyond it is cut off."""
    box = _visible(cel, canvas.size)
    if box is None:
        return canvas
    image = image.crop((0, 0, box[2] - box[0], box[3] - box[1]))
    opaque = image.mode == "RGB"
    if image.size == canvas.size and (opaque or not cel.blends):
        return image
    drawn = canvas.convert("RGBA") if canvas.mode == "RGB" and not (opaque or cel.blends) else canvas.copy()
    if opaque or not cel.blends:
        drawn.paste(image, box)
    elif drawn.mode == "RGB":
        drawn.paste(image, box, image)
    else:
        drawn.alpha_composite(image, box[:2])
    return drawn


def _cleared(canvas: Image.Image, cel: Cel) -> Image.Image:
    box = _visible(cel, canvas.size)
    if box is None:
        return canvas
    cleared = canvas.convert("RGBA") if canvas.mode == "RGB" else canvas.copy()
    cleared.paste((0, 0, 0, 0), box)
    return cleared


def _visible(cel: Cel, canvas: Size) -> Box | None:
    """The part of a cel's rectangle that lies on the canvas."""
    left, top, right, bottom = cel.box
    box = left, top, min(right, canvas[0]), min(bottom, canvas[1])
    return box if box[0] < box[2] and box[1] < box[3] else None
