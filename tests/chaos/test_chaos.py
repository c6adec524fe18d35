"""Short runs of `make chaos`, and the audit itself."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.armed import POINTS
from tests.chaos.audit import Books
from tests.chaos.bank import LIST_PRICE, Bank
from tests.chaos.clients import Export
from tests.chaos.races import race_for_budget, race_for_key
from tests.chaos.runs import kill_at_point, kills_at_random
from tests.chaos.streams import read_through_restarts

# The crash points after which the one call is not exported, and the states of all calls instead.
ENDS: dict[str, list[str]] = {
    "0": [],
    "2": ["unknown"],
    "3": ["unknown"],
    "4": ["unknown"],
    "13": ["unknown"],
}
# Points that are tried side by side: before the call, before its picture is kept, while it is kept, and afterwards.
GROUPS = [("0", "1", "2", "3"), ("4", "5", "6", "7"), ("8", "9", "10", "11"), ("12", "13")]


@pytest.mark.slow
async def test_kills_at_random_lose_nothing_and_pay_nothing_twice(tmp_path: Path) -> None:
    report = await kills_at_random(tmp_path, 12, random.Random(7))
    assert report.faults == {}


def test_every_crash_point_is_tried() -> None:
    assert [point.split()[0] for point in POINTS] == [number for group in GROUPS for number in group]


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS, ids="-".join)
async def test_a_call_whose_process_died_ends_as_its_crash_point_says(tmp_path: Path, group: tuple[str, ...]) -> None:
    points = [point for point in POINTS if point.split()[0] in group]
    reports = await asyncio.gather(*(kill_at_point(tmp_path / point.split()[0], point) for point in points))
    for number, report in zip(group, reports, strict=True):
        assert (number, report.faults) == (number, {})
        assert (number, report.states) == (number, ENDS.get(number, ["exported"]))


@pytest.mark.slow
async def test_racing_requests_stay_within_the_budget_through_kills(tmp_path: Path) -> None:
    report = await race_for_budget(tmp_path, 2, 30, 0.7, random.Random(7))
    assert report.faults == {}


@pytest.mark.slow
async def test_one_key_buys_once_through_a_kill_and_over_two_servers(tmp_path: Path) -> None:
    report = await race_for_key(tmp_path, 10)
    assert report.faults == {}


@pytest.mark.slow
async def test_readers_see_each_event_once_through_restarts(tmp_path: Path) -> None:
    report = await read_through_restarts(tmp_path, 20, random.Random(7))
    assert report.faults == {}


def call(state: str = "exported", **members: Any) -> dict[str, Any]:
    name = "generated/req_1_1.png"
    usual = {"state": state, "billed": True, "sent_at": "…", "cost_usd": 0.0336, "estimated": False}
    return {**usual, "storage_path": name, **members}


def books(storage: Path, *calls: dict[str, Any], bill: int = LIST_PRICE, total: float = 0.0336) -> Books:
    """One request of one variation, whose raw is there."""
    bank = Bank()
    bank.bill["script"].append(bill)
    for area in ("generated", "output", "temp", "uploads"):
        (storage / area).mkdir()
    (storage / "generated/req_1_1.png").touch()
    request = {"script": "script", "count": 1, "state": "succeeded", "variations": [], "calls": list(calls)}
    usage = {"total": {"cost_usd": total}, "budget": {"reserved_usd": 0.0}}
    return Books(storage, bank, [request], usage)


def test_the_audit_finds_nothing_where_all_is_well(tmp_path: Path) -> None:
    assert books(tmp_path, call()).audit().faults == {}


def test_the_audit_finds_a_call_that_was_never_listed(tmp_path: Path) -> None:
    faults = books(tmp_path, total=0.0).audit().faults
    assert faults == {"calls_unlisted": 1, "orphan_raws": 1}


def test_the_audit_finds_a_call_that_was_made_twice(tmp_path: Path) -> None:
    kept = books(tmp_path, call())
    kept.bank.bill["script"].append(LIST_PRICE)
    assert kept.audit().faults == {"calls_unlisted": 1, "calls_made_twice": 1}


def test_the_audit_finds_a_raw_without_exports(tmp_path: Path) -> None:
    assert books(tmp_path, call("unknown")).audit().faults == {"raws_without_exports": 1}


def test_the_audit_finds_a_cost_that_is_one_micro_dollar_off(tmp_path: Path) -> None:
    faults = books(tmp_path, call(), bill=LIST_PRICE + 1_000).audit().faults
    assert faults == {"costs_not_on_the_bill": 1, "micro_dollars_off": 33_600}


def test_an_estimated_cost_is_the_list_price(tmp_path: Path) -> None:
    assert books(tmp_path, call(estimated=True), bill=LIST_PRICE + 1_000).audit().faults == {}


def test_the_audit_finds_exports_that_are_gone_and_files_that_are_left(tmp_path: Path) -> None:
    kept = books(tmp_path, call())
    (tmp_path / "temp/req_1_2.part").touch()
    (tmp_path / "uploads/upload.png").touch()
    gone = Books(kept.storage, kept.bank, kept.requests, kept.usage, [Export("output/export.png", "0" * 64)])
    assert gone.audit().faults == {"exports_lost_or_changed": 1, "temp_files": 1, "orphan_uploads": 1}
