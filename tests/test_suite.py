"""`make test` leaves out few tests, and never a whole file; no test is lost."""

import pytest

from tests.conftest import COLLECTED

# Raised now and then; lower it only together with tests that were removed on purpose.
AT_LEAST = 7_000
SLOW_AT_MOST = 66


@pytest.fixture
def suite(request: pytest.FixtureRequest) -> list[pytest.Item]:
    """Every test there is, with what `-m` deselects."""
    if request.config.args != request.config.getini("testpaths"):
        pytest.skip("only a part of the tests was collected")
    return request.config.stash[COLLECTED]


def is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


def test_no_test_is_lost(suite: list[pytest.Item]) -> None:
    assert len(suite) >= AT_LEAST


def test_few_tests_are_slow(suite: list[pytest.Item]) -> None:
    assert 0 < sum(map(is_slow, suite)) <= SLOW_AT_MOST


def test_every_file_keeps_tests_that_are_not_slow(suite: list[pytest.Item]) -> None:
    quick = {item.path for item in suite if not is_slow(item)}
    assert {item.path for item in suite} == quick
