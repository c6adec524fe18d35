"""The secant search over synthetic curves."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from service.imaging.secant import Curve, Goal, Point, interpolated, search

STRAIGHT = Curve(0.03)


class Sizes:
    """The sizes of files by number; remembers which were asked for."""

    def __init__(self, sizes: dict[int, int], ends_after: int = 1_000) -> None:
        self.sizes = sizes
        self.asked: list[int] = []
        self._ends_after = ends_after

    def __call__(self, x: int) -> int | None:
        if len(self.asked) == self._ends_after:
            return None
        self.asked.append(x)
        return self.sizes[x]

    def best(self, most: int) -> int | None:
        return max((x for x in self.asked if self.sizes[x] <= most), default=None)


def ascending(low: int, high: int, steps: list[float]) -> dict[int, int]:
    """Sizes that grow with x by these factors, again and again."""
    sizes, size = {}, 1_000.0
    for x in range(low, high + 1):
        sizes[x] = int(size)
        size *= 1 + steps[x % len(steps)]
    return sizes


@given(
    steps=st.lists(st.floats(0, 0.2), min_size=1, max_size=30),
    span=st.tuples(st.integers(0, 60), st.integers(1, 60)),
    share=st.floats(0.01, 0.99),
    tries=st.integers(1, 8),
)
@settings(max_examples=300, deadline=None)
def test_a_search_meets_its_goal_or_shows_why_not(
    steps: list[float], span: tuple[int, int], share: float, tries: int
) -> None:
    low, high = span[0], sum(span)
    sizes = Sizes(ascending(low, high, steps))
    most = int(share * sizes.sizes[high])
    search(sizes, Point(high, sizes.sizes[high]), Goal(most, 0.95 * most, low, tries), STRAIGHT)
    assert 1 <= len(sizes.asked) <= tries
    assert len(set(sizes.asked)) == len(sizes.asked)
    assert all(low <= x < high for x in sizes.asked)
    best = sizes.best(most)
    if best is None:
        assert sizes.asked[-1] == low
    elif len(sizes.asked) < tries:
        assert sizes.sizes[best] >= 0.95 * most or best + 1 in (high, *sizes.asked)


def test_a_curve_that_is_known_takes_one_try() -> None:
    sizes = Sizes({x: round(1_000 * math.exp(0.03 * x)) for x in range(101)})
    most = round(1_000 * math.exp(0.03 * 60.4))
    search(sizes, Point(100, sizes.sizes[100]), Goal(most, 0.95 * most, 10, 7), STRAIGHT)
    assert sizes.asked in ([59], [60])


def test_a_curve_that_is_not_known_takes_few_tries() -> None:
    for slope in (0.005, 0.01, 0.06, 0.12):
        sizes = Sizes({x: round(10_000 * math.exp(slope * x)) for x in range(101)})
        for share in (0.9, 0.5, 0.2):
            most = int(sizes.sizes[100] * share)
            sizes.asked.clear()
            search(sizes, Point(100, sizes.sizes[100]), Goal(most, 0.95 * most, 10, 7), STRAIGHT)
            assert len(sizes.asked) <= 4


def test_sizes_that_do_not_grow_evenly_end_the_search_too() -> None:
    sizes = Sizes({x: 5_000 + 900 * (x % 7) - x for x in range(101)})
    for most in range(4_900, 10_000, 100):
        sizes.asked.clear()
        search(sizes, Point(100, 12_000), Goal(most, 0.95 * most, 10, 7), STRAIGHT)
        assert len(sizes.asked) <= 7


def test_a_search_ends_when_there_is_no_size() -> None:
    sizes = Sizes(dict.fromkeys(range(101), 9_000), ends_after=2)
    search(sizes, Point(100, 10_000), Goal(1_000, 950, 10, 7), STRAIGHT)
    assert len(sizes.asked) == 2


@given(x=st.floats(0, 120))
def test_an_interpolated_curve_has_its_inverse(x: float) -> None:
    curve = interpolated((10, 50, 100), (0, 1, 3))
    assert [curve.scale(at) for at in (10, 30, 50, 75, 100)] == [0, 0.5, 1, 2, 3]
    assert math.isclose(curve.unscale(curve.scale(x)), x, abs_tol=1e-9)
