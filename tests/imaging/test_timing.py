from fractions import Fraction

import pytest

from service.imaging.timing import quantized


@pytest.mark.parametrize(
    ("durations", "unit", "expected"),
    [
        ((40, 0, 70), 10, (40, 0, 70)),
        ((15, 15, 15, 15), 10, (20, 10, 20, 10)),
        ((4, 4, 4), 10, (10, 10, 10)),
        ((Fraction(1000, 30),) * 3, 1, (33, 34, 33)),
        ((Fraction(1, 2), Fraction(1, 2)), 1, (1, 1)),
        ((), 10, ()),
    ],
)
def test_starts_are_rounded_half_up_and_no_duration_becomes_zero(
    durations: tuple[int | Fraction, ...], unit: int, expected: tuple[int, ...]
) -> None:
    assert quantized(durations, unit) == expected


def test_sums_of_very_many_denominators_stay_small_and_right() -> None:
    durations = [100 + Fraction(1000, 65_535 - number) for number in range(5_000)]
    assert sum(quantized(durations)) == round(sum(map(float, durations)))
