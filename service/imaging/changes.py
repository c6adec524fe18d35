"""What changes from one frame of an animation to the next."""

from collections.abc import Iterable, Iterator, Sequence

from PIL import Image, ImageChops

from service.imaging.frame import Box

# What a frame draws that only lengthens the one before.
FIRST_PIXEL = (0, 0, 1, 1)


def common_mode(frames: Sequence[Image.Image]) -> str:
    """RGB if every pixel of these RGB or RGBA frames is opaque, else RGBA."""
    return "RGB" if all(map(_is_opaque, frames)) else "RGBA"


def _is_opaque(image: Image.Image) -> bool:
    return image.mode == "RGB" or image.getchannel("A").getextrema() == (255, 255)


def in_mode(frames: Sequence[Image.Image], mode: str) -> Iterator[Image.Image]:
    return (frame if frame.mode == mode else frame.convert(mode) for frame in frames)


def changed(before: Image.Image, after: Image.Image) -> Image.Image:
    """A mask, mode L: 255 where two images of one mode and size differ in any channel, else 0."""
    first, *others = ImageChops.difference(before, after).split()
    for channel in others:
        first = ImageChops.lighter(first, channel)
    return first.point(_ANY)


def changed_box(before: Image.Image, after: Image.Image) -> Box | None:
    """The smallest box around all differences, None if there are none."""
    return ImageChops.difference(before, after).getbbox(alpha_only=False)


def distinct(frames: Iterable[Image.Image], durations: Iterable[int]) -> Iterator[tuple[Image.Image, int]]:
    """Each frame with its duration; equal successive frames are one, with the sum of their durations."""
    shown: Image.Image | None = None
    total = 0
    for frame, duration in zip(frames, durations, strict=True):
        if shown is not None and changed_box(shown, frame):
            yield shown, total
            total = 0
        shown, total = frame, total + duration
    if shown is not None:
        yield shown, total


def union(one: Box | None, other: Box | None) -> Box | None:
    """The smallest box around both."""
    if one is None or other is None:
        return one or other
    return min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])


_ANY = [0] + [255] * 255
