"""The times of an animation: how long each of its frames is shown, and how often all of them are played."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

# The least difference of exact times that is kept: sums of fractions of many denominators would grow without limit.
_TICKS = 1 << 64


@dataclass(frozen=True, slots=True)
class Timing:
    """`durations` of the frames in milliseconds; `plays` is how often the animation is shown, 0 for ever."""

    durations: tuple[int, ...]
    plays: int = 0


def quantized(durations: Iterable[int | Fraction], unit: int = 1) -> tuple[int, ...]:
    """Durations as multiples of `unit`, all in milliseconds.

    The times at which frames start are rounded half up, so that errors do not add up. A duration that is not 0 stays at
    least one unit, and 0 stays 0.
    """
    start = Fraction(0)
    quantized: list[int] = []
    for duration in durations:
        end = _limited(start + duration)
        units = _rounded(end / unit) - _rounded(start / unit)
        quantized.append(unit * (max(1, units) if duration else 0))
        start = end
    return tuple(quantized)


def _limited(time: Fraction) -> Fraction:
    return time if time.denominator < _TICKS else Fraction(_rounded(time * _TICKS), _TICKS)


def _rounded(number: Fraction) -> int:
    """The nearest whole number; of two, the higher one."""
    return (2 * number.numerator + number.denominator) // (2 * number.denominator)
