"""An animation before it is decoded: its canvas, and the images that are drawn onto it one after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from service.imaging.frame import Box, Size
from service.imaging.timing import Timing

if TYPE_CHECKING:
    from service.imaging.containers.container import Container

# What becomes of a cel's rectangle before the next cel is drawn: it stays, is cleared, or is as it was before the cel.
Disposal = Literal["keep", "background", "previous"]


@dataclass(frozen=True, slots=True)
class Cel:
    """The image that one frame of an animation draws onto the canvas; without width or height it draws nothing.

    still     makes a file of this image alone, which `decode` reads; raises Undecodable
    left, top, width, height   its rectangle, which may reach beyond the canvas
    disposal  what becomes of the rectangle when the time of the frame is over
    blends    it lies over the canvas; else it replaces the rectangle, with its transparency
    """

    still: Callable[[], "Container"]
    left: int
    top: int
    width: int
    height: int
    disposal: Disposal = "keep"
    blends: bool = True

    @property
    def box(self) -> Box:
        return self.left, self.top, self.left + self.width, self.top + self.height

    @property
    def size(self) -> Size:
        return self.width, self.height

    def within(self, canvas: Size) -> bool:
        return self.left + self.width <= canvas[0] and self.top + self.height <= canvas[1]


@dataclass(frozen=True, slots=True)
class Animation:
    """The frames of an animation, one for each cel; the canvas is transparent before the first one.

    canvas  its size in pixels, before the orientation of the file is applied
    timing  has a duration for each cel
    fault   why it cannot be composed, if it cannot
    """

    canvas: Size
    cels: Sequence[Cel]
    timing: Timing
    fault: str | None = None
