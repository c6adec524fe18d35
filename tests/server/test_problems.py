"""Errors as problem+json, whatever the route."""

import pytest

from service.errors import Busy, Draining, NoExport, OutOfDescriptors, ServiceError, StorageFull, StorageUnavailable
from service.server.problems import problem


def no_export() -> NoExport:
    return NoExport("no space is left", billed=True, status=507)


@pytest.mark.parametrize("error", [StorageFull("full"), no_export()])
def test_every_507_has_a_retry_after_of_a_minute(error: ServiceError) -> None:
    answer = problem(error, "req_1")
    assert (answer.status, answer.headers["Retry-After"]) == (507, "60")


@pytest.mark.parametrize("error", [Busy("full"), Draining("stopping"), OutOfDescriptors("too few")])
def test_a_shortage_that_passes_has_a_retry_after(error: ServiceError) -> None:
    answer = problem(error, "req_1")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")


def test_other_errors_have_their_own_headers() -> None:
    assert "Retry-After" not in problem(StorageUnavailable("gone"), "req_1").headers
