"""The steps: allowed transitions, the event of each, and the money that it moves."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from service.errors import BudgetExhausted
from service.ledger import statements
from service.ledger.ledger import Ledger
from service.ledger.money import day_of
from service.ledger.queries import state_of
from service.ledger.rows import CallRow
from service.ledger.steps import CallId, Failure, NewRequest, Receipt
from service.store.layout import export_stem, request_id
from tests.ledger.conftest import DAY, HOUR, Clock, Open

ROUTE = "POST /api/thumbnails"
PRICE = 33_600_000
COST = 35_628_000
UNKNOWN = request_id()
MISSING = json.dumps({"code": "raw_missing"})


def new(count: int = 1, key: str | None = None, **changes: Any) -> NewRequest:
    values: dict[str, Any] = {
        "id": request_id(), "principal": "-", "route": ROUTE, "fingerprint": "f", "mode": "sync", "backend": "gemini",
        "spec": "{}", "upload": None, "model": "m", "image_size": "1K", "stems": [export_stem() for _ in range(count)],
        "list_price": PRICE, "idempotency_key": key,
    }  # fmt: skip
    return NewRequest(**values | changes)


def receipt(number: int = 1, cost: int | None = COST) -> Receipt:
    return Receipt(f"generated/req_{number}.png", "00", 7, "{}", cost, estimated=False)


async def calls(ledger: Ledger, request: NewRequest) -> list[CallRow]:
    found = await ledger.request(request.id)
    assert found
    return found[1]


async def states(ledger: Ledger, request: NewRequest) -> list[str]:
    return [call.state for call in await calls(ledger, request)]


async def kinds(ledger: Ledger, request: NewRequest) -> list[tuple[int, str, int | None]]:
    return [(event.sequence, event.kind, event.number) for event in await ledger.events(request.id, 0)]


async def money(ledger: Ledger) -> tuple[int, int, int]:
    today = await ledger.today()
    return today.reserved, today.spent, today.possible


async def test_a_call_goes_from_planned_to_exported(ledger: Ledger) -> None:
    request = new()
    call = CallId(request.id, 1)
    assert (await ledger.open(request)).is_new
    assert await states(ledger, request) == ["planned"]
    assert await ledger.send(call)
    assert await ledger.receive(call, receipt())
    assert await ledger.export(call, '{"id": "var-1"}')
    [row] = await calls(ledger, request)
    assert (row.state, row.billed, row.cost, row.result) == ("exported", 1, COST, '{"id": "var-1"}')
    assert await kinds(ledger, request) == [(1, "sent", 1), (2, "received", 1), (3, "exported", 1), (4, "done", None)]
    found = await ledger.request(request.id)
    assert found
    assert found[0].finished


STEPS = {
    "send": lambda ledger, call: ledger.send(call),
    "refuse": lambda ledger, call: ledger.refuse(call),
    "receive": lambda ledger, call: ledger.receive(call, receipt()),
    "export": lambda ledger, call: ledger.export(call, "{}"),
    "fail": lambda ledger, call: ledger.fail(call, Failure("{}", billed=False)),
    "miss": lambda ledger, call: ledger.fail(call, Failure(MISSING, billed=True)),
    "lose": lambda ledger, call: ledger.lose(call, "{}"),
    "cancel": lambda ledger, call: ledger.cancel(call, "{}"),
}
ALLOWED = {
    ("planned", "send"): "sending",
    ("planned", "fail"): "failed",
    ("planned", "miss"): "failed",
    ("planned", "cancel"): "cancelled",
    ("sending", "refuse"): "planned",
    ("sending", "receive"): "received",
    ("sending", "fail"): "failed",
    ("sending", "miss"): "failed",
    ("sending", "lose"): "unknown",
    ("received", "export"): "exported",
    ("received", "fail"): "failed",
    ("received", "miss"): "failed",
    ("unknown", "receive"): "received",
    ("missing", "receive"): "received",
}
WAYS: dict[str, Sequence[str]] = {
    "planned": [],
    "sending": ["send"],
    "received": ["send", "receive"],
    "exported": ["send", "receive", "export"],
    "failed": ["send", "fail"],
    "missing": ["send", "receive", "miss"],
    "unknown": ["send", "lose"],
    "cancelled": ["cancel"],
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("state", WAYS)
async def test_only_the_steps_of_the_diagram_are_made(ledger: Ledger, state: str, step: str) -> None:
    request = new()
    call = CallId(request.id, 1)
    await ledger.open(request)
    for way in WAYS[state]:
        assert await STEPS[way](ledger, call)
    before = await calls(ledger, request), await kinds(ledger, request), await money(ledger)
    expected = ALLOWED.get((state, step))
    assert await STEPS[step](ledger, call) == bool(expected)
    if expected:
        assert await states(ledger, request) == [expected]
    else:
        assert (await calls(ledger, request), await kinds(ledger, request), await money(ledger)) == before


@pytest.mark.parametrize("state", WAYS)
async def test_the_money_of_a_day_is_the_sum_of_its_calls(ledger: Ledger, clock: Clock, state: str) -> None:
    request = new()
    call = CallId(request.id, 1)
    await ledger.open(request)
    for way in WAYS[state]:
        await STEPS[way](ledger, call)
    expected = {
        "planned": (2 * PRICE, 0, 0),
        "sending": (2 * PRICE, 0, 0),
        "received": (0, COST, 0),
        "exported": (0, COST, 0),
        "failed": (0, 0, 0),
        "missing": (0, COST, 0),
        "unknown": (0, 0, PRICE),
        "cancelled": (0, 0, 0),
    }
    assert await money(ledger) == expected[state]
    sums = await ledger._writer.run(lambda database: database.run(statements.SUM_DAY, {"day": day_of(clock.now)}))
    assert [tuple(map(int, row)) for row in sums] == [expected[state]]


async def test_possibly_billed_money_is_spent_when_the_picture_is_found(ledger: Ledger) -> None:
    request = new()
    call = CallId(request.id, 1)
    await ledger.open(request)
    await ledger.send(call)
    await ledger.lose(call, "{}")
    assert await money(ledger) == (0, 0, PRICE)
    assert await ledger.receive(call, receipt())
    found = await ledger.request(request.id)
    assert found
    assert found[0].finished is None
    assert await ledger.export(call, "{}")
    assert await money(ledger) == (0, COST, 0)
    assert [kind for _, kind, _ in await kinds(ledger, request)] == [
        "sent", "failed", "done", "received", "exported", "done",
    ]  # fmt: skip


async def test_an_export_brings_a_receipt_that_could_not_be_written_before(ledger: Ledger) -> None:
    request = new()
    call = CallId(request.id, 1)
    await ledger.open(request)
    await ledger.send(call)
    assert await ledger.export(call, "{}", receipt())
    assert await states(ledger, request) == ["exported"]
    assert await money(ledger) == (0, COST, 0)


async def test_a_request_ends_with_its_last_call(ledger: Ledger) -> None:
    request = new(3)
    await ledger.open(request)
    for number in (1, 2):
        await ledger.cancel(CallId(request.id, number), "{}")
    found = await ledger.request(request.id)
    assert found
    assert not found[0].finished
    await ledger.send(CallId(request.id, 3))
    await ledger.receive(CallId(request.id, 3), receipt())
    await ledger.export(CallId(request.id, 3), "{}")
    [*_, last] = await ledger.events(request.id, 0)
    assert (last.kind, json.loads(last.data or "")) == ("done", {"state": "partial", "cost": COST, "possible": 0})


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        (("exported", "exported"), "succeeded"),
        (("exported", "unknown"), "partial"),
        (("cancelled", "cancelled"), "cancelled"),
        (("cancelled", "failed"), "failed"),
        (("received", "exported"), "running"),
    ],
)
async def test_the_state_of_a_request_follows_from_its_calls(ledger: Ledger, ends: Sequence[str], state: str) -> None:
    request = new(len(ends))
    await ledger.open(request)
    for number, end in enumerate(ends, 1):
        for way in WAYS[end]:
            await STEPS[way](ledger, CallId(request.id, number))
    assert state_of(await calls(ledger, request)) == state


async def test_of_many_at_once_with_one_key_one_is_opened(ledger: Ledger, another: Open) -> None:
    other = await another()
    requests = [new(2, "key") for _ in range(40)]
    opened = await asyncio.gather(*((ledger, other)[n % 2].open(request) for n, request in enumerate(requests)))
    [mine] = [each for each in opened if each.is_new]
    assert {each.request.id for each in opened} == {mine.request.id}
    assert (await ledger.states()) == {"planned": 2}
    assert await money(ledger) == (4 * PRICE, 0, 0)


async def test_keys_of_other_principals_and_routes_are_other_keys(ledger: Ledger) -> None:
    for request in (new(key="key"), new(key="key", principal="p"), new(key="key", route="r"), new()):
        assert (await ledger.open(request)).is_new


@pytest.mark.parametrize(
    ("end", "free"), [("cancelled", True), ("failed", True), ("unknown", False), ("exported", False)]
)
async def test_a_key_is_free_again_when_surely_nothing_was_billed(ledger: Ledger, end: str, free: bool) -> None:
    request = new(key="key")
    await ledger.open(request)
    for way in WAYS[end]:
        await STEPS[way](ledger, CallId(request.id, 1))
    assert (await ledger.open(new(key="key"))).is_new is free
    found = await ledger.newest_of_key(("-",), ROUTE, "key")
    assert found
    assert (found[0].id != request.id) is free


async def test_a_key_is_kept_for_its_time_and_to_the_end_of_its_request(ledger: Ledger, clock: Clock) -> None:
    request = new(key="key")
    await ledger.open(request)
    clock.now += 2 * DAY
    assert not (await ledger.open(new(key="key"))).is_new
    for way in WAYS["exported"]:
        await STEPS[way](ledger, CallId(request.id, 1))
    assert (await ledger.open(new(key="key"))).is_new


async def test_a_budget_is_reserved_for_all_calls_or_for_none(another: Open, clock: Clock) -> None:
    ledger = await another(budget=9 * PRICE)
    first, second, third = new(2), new(3), new(2)
    await ledger.open(first)
    with pytest.raises(BudgetExhausted) as caught:
        await ledger.open(second)
    assert caught.value.headers == {"Retry-After": "5"}
    assert await ledger.request(second.id) is None
    assert await money(ledger) == (4 * PRICE, 0, 0)
    await ledger.open(third)
    for request in (first, third):
        for number in (1, 2):
            await ledger.send(CallId(request.id, number))
            await ledger.lose(CallId(request.id, number), "{}")
    assert await money(ledger) == (0, 0, 4 * PRICE)
    await ledger.open(new(2))
    with pytest.raises(BudgetExhausted):
        await ledger.open(new(1))
    clock.now += DAY
    await ledger.open(new(4))


async def test_after_midnight_there_is_budget_again(another: Open, clock: Clock) -> None:
    ledger = await another(budget=PRICE)
    with pytest.raises(BudgetExhausted) as caught:
        await ledger.open(new())
    seconds = int(caught.value.headers["Retry-After"])
    assert day_of(clock.now + seconds * 1_000_000) != day_of(clock.now)
    assert day_of(clock.now + (seconds - 2) * 1_000_000) == day_of(clock.now)


async def test_racing_requests_never_pass_the_budget(another: Open) -> None:
    ledgers = [await another(budget=20 * PRICE) for _ in range(2)]

    async def one(number: int) -> bool:
        try:
            await ledgers[number % 2].open(new())
        except BudgetExhausted:
            return False
        return True

    assert sum(await asyncio.gather(*map(one, range(100)))) == 10
    assert await money(ledgers[0]) == (20 * PRICE, 0, 0)


async def test_racing_requests_never_pass_the_budget_of_their_principal(another: Open) -> None:
    ledgers = [await another(), await another(budget=1000 * PRICE)]
    one: dict[str, Any] = {"principal": "name:one", "formerly": ("f" * 32,), "budget": 20 * PRICE}
    await ledgers[0].open(new(principal="f" * 32))

    async def run(number: int) -> bool:
        """Open and lose a call, so that money is reserved and moved at once; every fifth is of another principal."""
        ledger, request = ledgers[number % 2], new(**({} if number % 5 == 0 else one))
        try:
            await ledger.open(request)
        except BudgetExhausted:
            return False
        await ledger.send(CallId(request.id, 1))
        await ledger.lose(CallId(request.id, 1), "{}")
        return number % 5 != 0

    admitted = sum(await asyncio.gather(*map(run, range(100))))
    own = await ledgers[0].today(("name:one", "f" * 32))
    assert (own.reserved, own.possible) == (2 * PRICE, admitted * PRICE)
    assert 9 <= admitted <= 18
    assert own.used <= 20 * PRICE
    assert await money(ledgers[1]) == (2 * PRICE, 0, (admitted + 20) * PRICE)


async def test_a_refused_budget_of_a_principal_reserves_nothing_of_that_of_all(another: Open) -> None:
    ledger = await another(budget=100 * PRICE)
    with pytest.raises(BudgetExhausted) as caught:
        await ledger.open(new(2, principal="name:one", budget=3 * PRICE))
    assert int(caught.value.headers["Retry-After"]) > 5
    assert caught.value.detail == "the budget of this API key does not allow this request"
    assert await money(ledger) == (0, 0, 0)
    await ledger.open(new(1, principal="name:one", budget=3 * PRICE))
    with pytest.raises(BudgetExhausted) as caught:
        await ledger.open(new(1, principal="name:one", budget=3 * PRICE))
    assert caught.value.headers == {"Retry-After": "5"}


async def test_a_key_of_a_former_principal_is_found(ledger: Ledger) -> None:
    before = new(key="key", principal="f" * 32)
    await ledger.open(before)
    named = new(key="key", principal="name:one", formerly=("e" * 32, "f" * 32))
    found = await ledger.open(named)
    assert (found.is_new, found.request.id) == (False, before.id)
    assert await ledger.holder(named.principals, ROUTE, "key") == found.request
    assert [row.id for row, _ in await ledger.newest(named.principals, 5)] == [before.id]


async def test_usage_by_name_has_a_row_for_each_name_and_one_for_all_without(ledger: Ledger) -> None:
    for principal in ("name:one", "name:two", "name:two", "f" * 32, "e" * 32, "-", "cli"):
        request = new(principal=principal)
        await ledger.open(request)
        await ledger.send(CallId(request.id, 1))
    days = ("2000-01-01", "2100-01-01")
    rows = await ledger.usage(None, *days, by_name=True)
    assert [(row.key_name, row.calls) for row in rows] == [("-", 4), ("one", 1), ("two", 2)]
    assert [(row.key_name, row.calls) for row in await ledger.usage(None, *days)] == [("-", 7)]
    assert [row.calls for row in await ledger.usage(("name:two", "f" * 32), *days)] == [3]


async def test_an_unknown_price_is_neither_reserved_nor_spent(ledger: Ledger) -> None:
    request = new(list_price=None)
    await ledger.open(request)
    await ledger.send(CallId(request.id, 1))
    await ledger.receive(CallId(request.id, 1), receipt(cost=None))
    assert (await calls(ledger, request))[0].cost is None
    assert await money(ledger) == (0, 0, 0)
    [row] = await ledger.usage(None, "2000-01-01", "2100-01-01")
    assert (row.calls, row.cost, row.unpriced) == (1, 0, 1)


async def test_usage_counts_calls_that_may_have_been_billed(ledger: Ledger) -> None:
    for end in WAYS:
        request = new(principal="p")
        await ledger.open(request)
        for way in WAYS[end]:
            await STEPS[way](ledger, CallId(request.id, 1))
    rows = await ledger.usage(("p",), "2000-01-01", "2100-01-01")
    assert {row.outcome: (row.calls, row.pictures, row.cost, row.possible) for row in rows} == {
        "open": (2, 1, COST, 0),
        "exported": (1, 1, COST, 0),
        "failed": (1, 0, COST, 0),
        "unknown": (1, 0, 0, PRICE),
    }
    assert await ledger.usage(("q",), "2000-01-01", "2100-01-01") == []
    assert await ledger.usage(("p",), "2000-01-01", "2000-01-02") == []


async def test_newest_first_and_page_by_page(ledger: Ledger) -> None:
    requests = [new() for _ in range(5)]
    for request in requests:
        await ledger.open(request)
    await ledger.open(new(principal="other"))
    first = await ledger.newest(("-",), 3)
    assert [row.id for row, _ in first] == [request.id for request in requests[:1:-1]]
    rest = await ledger.newest(("-",), 3, first[-1][0])
    assert [row.id for row, _ in rest] == [request.id for request in requests[1::-1]]
    assert len(await ledger.newest(None, 100)) == 6


async def test_a_deleted_request_is_gone_and_its_money_stays(ledger: Ledger) -> None:
    request = new(key="key", spec='{"script": "secret"}')
    await ledger.open(request)
    for way in WAYS["exported"]:
        await STEPS[way](ledger, CallId(request.id, 1))
    await ledger.delete(request.id)
    assert await ledger.request(request.id) is None
    assert await ledger.newest(("-",), 10) == []
    assert await ledger.newest_of_key(("-",), ROUTE, "key") is None
    assert [row.cost for row in await ledger.usage(("-",), "2000-01-01", "2100-01-01")] == [COST]
    holder = await ledger.open(new(key="key"))
    assert not holder.is_new
    assert holder.request.deleted
    assert "secret" not in holder.request.spec


async def test_rows_are_forgotten_after_their_time_but_not_while_a_key_is_held(ledger: Ledger, clock: Clock) -> None:
    old, keyed, running = new(), new(key="key"), new()
    for request in (old, keyed, running):
        await ledger.open(request)
    for request in (old, keyed):
        for way in WAYS["exported"]:
            await STEPS[way](ledger, CallId(request.id, 1))
    clock.now += HOUR
    await ledger.forget(clock.now)
    assert [row.id for row, _ in await ledger.newest(("-",), 9)] == [running.id, keyed.id]
    clock.now += DAY
    await ledger.forget(clock.now)
    assert [row.id for row, _ in await ledger.newest(("-",), 9)] == [running.id]
    assert await ledger.events(old.id, 0) == []


async def test_raws_without_exports_and_uploads_of_open_requests_are_protected(ledger: Ledger) -> None:
    request = new(2, upload="uploads/a.png")
    await ledger.open(request)
    assert await ledger.protected() == {"uploads/a.png"}
    for number in (1, 2):
        await ledger.send(CallId(request.id, number))
        await ledger.receive(CallId(request.id, number), receipt(number))
    await ledger.export(CallId(request.id, 1), "{}")
    assert await ledger.protected() == {"uploads/a.png", "generated/req_2.png"}
    await ledger.export(CallId(request.id, 2), "{}")
    assert await ledger.protected() == set()


async def test_files_that_no_row_names_are_found(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.ledger.ledger.LOOKUPS", 2)
    own = request_id()
    request = new(2, id=own, upload=f"uploads/{own}_image.png")
    await ledger.open(request)
    for number in (1, 2):
        await ledger.send(call := CallId(request.id, number))
        await ledger.receive(call, replace(receipt(), raw=f"generated/{request.id}_{number}.png"))
    strays = [f"{request.id}_1.jpg", f"{request.id}_3.png", f"{UNKNOWN}_1.png", "a.png", "_", ""]
    assert await ledger.unnamed("generated", [f"{request.id}_1.png", *strays, f"{request.id}_2.png"]) == strays
    strays = [f"{request.id}_base.png", f"{UNKNOWN}_image.png", "a.png"]
    assert await ledger.unnamed("uploads", [*strays, f"{request.id}_image.png"]) == strays
