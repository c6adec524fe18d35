"""Patches: what each frame of an animated GIF draws on the canvas that the frame before it leaves."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

from PIL import Image, ImageChops

from service.imaging.changes import FIRST_PIXEL, changed, union
from service.imaging.frame import Box

OPAQUE_FROM = 128  # the alpha from which on a pixel is drawn

# A frame and its duration in ms.
Shown = tuple[Image.Image, int]


@dataclass(frozen=True, slots=True)
class Patch:
    """A rectangle of a frame.

    image   RGB
    drawn   255 where it is drawn, 0 where the canvas stays; None: everywhere
    opaque  all may be drawn: the frame has no transparent pixel here, and no need of a transparent colour
    clears  the rectangle becomes transparent when the frame ends
    """

    image: Image.Image
    box: Box
    drawn: Image.Image | None
    opaque: bool
    clears: bool


def sharp(frames: Sequence[Image.Image]) -> Iterator[Image.Image]:
    """RGB or RGBA frames in one mode, each pixel either opaque or (0, 0, 0, 0): RGB if all are opaque."""
    if all(_is_opaque(frame) for frame in frames):
        yield from (frame.convert("RGB") for frame in frames)
        return
    for frame in frames:
        image = Image.new("RGBA", frame.size)
        opaque = frame.convert("RGBA").getchannel("A").point(_OPAQUE)
        image.paste(frame.convert("RGB"), mask=opaque)
        yield image


def patches(frames: Iterable[Shown]) -> Iterator[tuple[Patch, int]]:
    """The patch of each sharp frame, with the frame's duration.

    A pixel becomes transparent only when a patch clears its rectangle, so one is drawn around all that vanish after it.
    """
    canvas: Image.Image | None = None
    for shown, after in pairwise(chain(frames, (None,))):
        if shown is None:
            return
        frame, duration = shown
        vanishing = _vanishing(frame, after[0]) if after else None
        if canvas is None:
            box, drawn = (0, 0, *frame.size), _alpha(frame)
        else:
            drawn = changed(canvas, frame)
            box = union(drawn.getbbox(), vanishing) or FIRST_PIXEL
        yield _patch(frame, box, drawn, clears=vanishing is not None, first=canvas is None), duration
        canvas = frame
        if vanishing:
            canvas = frame.copy()
            canvas.paste((0, 0, 0, 0), box)


def _patch(frame: Image.Image, box: Box, drawn: Image.Image | None, *, clears: bool, first: bool) -> Patch:
    """Where a frame clears, its patch needs a transparent colour: without one, Pillow and libvips clear to a colour.

    So does the first patch, if anything is transparent later: without one, Pillow shows black there.
    """
    alpha, mask = _alpha(frame), drawn.crop(box) if drawn else None
    transparent = clears or (first and alpha is not None)
    return Patch(
        image=frame.crop(box).convert("RGB"),
        box=box,
        drawn=mask if mask and (transparent or not _full(mask)) else None,
        opaque=not transparent and (alpha is None or _full(alpha.crop(box))),
        clears=clears,
    )


def _alpha(frame: Image.Image) -> Image.Image | None:
    return frame.getchannel("A") if frame.mode == "RGBA" else None


def _is_opaque(frame: Image.Image) -> bool:
    alpha = _alpha(frame)
    return alpha is None or _full(alpha.point(_OPAQUE))


def _full(mask: Image.Image) -> bool:
    return mask.getextrema() == (255, 255)


def _vanishing(frame: Image.Image, after: Image.Image) -> Box | None:
    """The smallest box around the pixels that become transparent."""
    if frame.mode == "RGB":
        return None
    return ImageChops.subtract(frame.getchannel("A"), after.getchannel("A")).getbbox()


_OPAQUE = [0] * OPAQUE_FROM + [255] * (256 - OPAQUE_FROM)
