"""The rule that turns the size of a picture into the size of its exports."""

from dataclasses import dataclass

from service.imaging.errors import ImpossibleFrame

Size = tuple[int, int]
# Left, top, right and bottom edge of a rectangle of pixels.
Box = tuple[int, int, int, int]

MAX_SIDE = 8192


@dataclass(frozen=True, slots=True)
class Frame:
    """The rule that turns a picture's size into the size of its exports, in pixels.

    width and height      met exactly
    one of them           the other follows `ratio` (else the picture's own), rounded half up
    neither, with ratio   the largest whole multiple of the ratio that fits into the picture and into `longest`
    neither, without      the picture's own size, scaled down until the longer side is at most `longest`
    """

    width: int | None = None
    height: int | None = None
    ratio: Size | None = None
    longest: int | None = None

    def keeps_all(self, picture: Size, size: Size) -> bool:
        """Whether `size` follows from the ratio of the picture itself, so that no part of it may be cropped."""
        if self.ratio or (self.width and self.height):
            return False
        (width, height), (of_width, of_height) = size, picture
        return height == _scaled(width * of_height, of_width) or width == _scaled(height * of_width, of_height)

    def size(self, picture: Size) -> Size:
        """The size for a picture of size `picture`, both upright; raises ImpossibleFrame."""
        a, b = self.ratio or picture
        if self.width and self.height:
            return self.width, self.height
        if self.width:
            return self.width, _side(self.width * b, a)
        if self.height:
            return _side(self.height * a, b), self.height
        if self.ratio:
            k = min(picture[0] // a, picture[1] // b)
            if self.longest:
                k = min(k, self.longest // max(a, b))
            return max(1, k) * a, max(1, k) * b
        longest = min(self.longest or max(picture), max(picture))
        return _scaled(picture[0] * longest, max(picture)), _scaled(picture[1] * longest, max(picture))


def _scaled(numerator: int, denominator: int) -> int:
    """The quotient, rounded half up, at least 1."""
    return max(1, (2 * numerator + denominator) // (2 * denominator))


def _side(numerator: int, denominator: int) -> int:
    side = _scaled(numerator, denominator)
    if side > MAX_SIDE:
        raise ImpossibleFrame(f"the other side would be {side} pixels; at most {MAX_SIDE} are allowed")
    return side
