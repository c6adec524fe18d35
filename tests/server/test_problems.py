"""Errors as problem+json: what does not depend on a route."""

import pytest

from service.errors import NoExport, ServiceError, StorageFull, StorageUnavailable
from service.server.problems import problem


def no_export() -> NoExport:
    return NoExport("no space is left", billed=True, status=507)


@pytest.mark.parametrize("error", [StorageFull("full"), no_export()])
def test_every_507_says_when_to_come_again(error: ServiceError) -> None:
    answer = problem(error, "req_1")
    assert (answer.status, answer.headers["Retry-After"]) == (507, "60")


def test_other_errors_have_their_own_headers() -> None:
    assert "Retry-After" not in problem(StorageUnavailable("gone"), "req_1").headers
