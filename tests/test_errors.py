import re
from pathlib import Path

import pytest

from service.error_codes import classes, overall_error
from service.errors import (
    Blocked,
    GeminiAuth,
    GeminiTimeout,
    GeminiUnavailable,
    InvalidField,
    NotFound,
    QuotaExhausted,
    ServiceError,
    StorageFull,
)

API = Path(__file__).parents[1] / "docs/api.md"


def test_the_api_page_has_every_code_under_its_status_and_no_other() -> None:
    section = API.read_text().partition("\n## Errors\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d{3}[\d, ]*) \| (.*) \|$", section, re.MULTILINE)
    listed = {code: statuses for statuses, codes in rows for code in re.findall(r"`([a-z_0-9]+)`", codes)}
    tree = {kind.code: kind.status for kind in classes(ServiceError)}
    assert listed.keys() == tree.keys()
    assert [code for code, status in tree.items() if str(status) not in listed[code]] == []


@pytest.mark.parametrize(("billed", "retryable"), [(False, True), (True, False), (None, False)])
def test_only_an_error_that_was_not_billed_is_retryable(billed: bool | None, retryable: bool) -> None:
    for kind in classes(ServiceError):
        assert kind("no space is left", billed=billed).worth_retrying == (kind.retryable and retryable)


def test_only_the_title_of_outcome_unknown_mentions_billing() -> None:
    assert [kind.code for kind in classes(ServiceError) if "billed" in kind.title] == ["outcome_unknown"]


def test_errors_rank_by_status_and_an_unexpected_fault_is_last() -> None:
    conflict, absent = ServiceError("for later", status=409), NotFound("gone")
    ranked = [
        StorageFull("full"), GeminiTimeout("slow"), GeminiAuth("key"), QuotaExhausted("quota"),
        GeminiUnavailable("busy"), Blocked("no"), conflict, absent, ServiceError("a fault"),
    ]  # fmt: skip
    for place, error in enumerate(ranked):
        assert overall_error(ranked[: place - 1 : -1] if place else ranked[::-1]) is error
    # Of two with the same status the first counts.
    assert overall_error([first := Blocked("no"), InvalidField("no")]) is first
