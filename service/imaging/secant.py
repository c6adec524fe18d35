"""A secant search for the largest number whose file has at most so many bytes."""

import math
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True, slots=True)
class Point:
    """A number, and the size in bytes of the file that is made with it."""

    x: int
    size: int


@dataclass(frozen=True, slots=True)
class Curve:
    """How the size depends on x: log(size) is about linear in scale(x), with `slope` until two sizes are known."""

    slope: float
    scale: Callable[[float], float] = float
    unscale: Callable[[float], float] = float

    def x(self, size: float, near: Point, other: Point | None) -> int:
        """The x of a file of `size` bytes, on the line through both points, or through one with the expected slope."""
        slope = self.slope
        if other and (near.size - other.size) * (near.x - other.x) > 0:
            slope = math.log(near.size / other.size) / (self.scale(near.x) - self.scale(other.x))
        return round(self.unscale(self.scale(near.x) + math.log(size / near.size) / slope))


def interpolated(xs: Sequence[float], logarithms: Sequence[float]) -> Curve:
    """The curve through the logarithms of the sizes at some numbers, linear between them; both ascend."""
    return Curve(1.0, partial(_interpolate, xs, logarithms), partial(_interpolate, logarithms, xs))


def _interpolate(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """The y at x; before the first and after the last x the line goes on."""
    end = min(max(1, bisect(xs, x)), len(xs) - 1)
    share = (x - xs[end - 1]) / (xs[end] - xs[end - 1])
    return ys[end - 1] + share * (ys[end] - ys[end - 1])


@dataclass(frozen=True, slots=True)
class Goal:
    """A file of `enough` to `most` bytes, found with the numbers from `lowest` on, in at most so many tries."""

    most: int
    enough: float
    lowest: int
    tries: int


def search(size_of: Callable[[int], int | None], over: Point, goal: Goal, curve: Curve) -> None:
    """Call `size_of` with numbers below `over.x`, whose file is too large, until a file meets the goal.

    It also ends when the next larger number is known to be too large, when the lowest is, and when `size_of` returns
    None. If no file fits, the last try is the lowest number.
    """
    # The bracket: the largest number known to fit, and `over`, the smallest known to be too large.
    fits: Point | None = None
    before: Point | None = None
    for left in reversed(range(goal.tries)):
        x = curve.x((goal.enough + goal.most) / 2, over, fits or before)
        x = max(fits.x + 1 if fits else goal.lowest, min(over.x - 1, x)) if left or fits else goal.lowest
        size = size_of(x)
        if size is None:
            return
        if size <= goal.most:
            fits = Point(x, size)
        else:
            before, over = over, Point(x, size)
        if over.x == (fits.x + 1 if fits else goal.lowest) or (fits and fits.size >= goal.enough):
            return
