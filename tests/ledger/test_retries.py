"""Which request an automatic retry repeats, by the ledger."""

import asyncio
import json

import pytest

from service.errors import Busy
from service.ledger.ledger import Ledger
from service.ledger.retries import JOINABLE
from service.ledger.rows import RequestRow
from service.ledger.steps import CallId, Failure, NewRequest
from tests.ledger.conftest import Clock, Open
from tests.ledger.test_steps import ROUTE, new, receipt

BODY = (("-",), ROUTE, "f")


async def ended(ledger: Ledger, *, billed: bool = True) -> NewRequest:
    request = new()
    call = CallId(request.id, 1)
    await ledger.open(request)
    await ledger.send(call)
    if billed:
        await ledger.receive(call, receipt())
        await ledger.export(call, "{}")
    else:
        await ledger.fail(call, Failure(json.dumps({"code": "gemini_auth"}), billed=False))
    return request


def id_of(joined: RequestRow | None) -> str | None:
    return joined.id if joined else None


async def test_the_undelivered_ones_are_joined_in_their_order_and_then_the_newest(ledger: Ledger) -> None:
    first, delivered, third, newest = [await ended(ledger) for _ in range(4)]
    await ledger.deliver(delivered.id)
    await ledger.deliver(newest.id)
    joined = [id_of(await ledger.join(*BODY)) for _ in range(4)]
    assert joined == [first.id, third.id, newest.id, newest.id]


async def test_a_running_request_is_joined_however_old_and_an_ended_one_for_15_minutes(
    ledger: Ledger, clock: Clock
) -> None:
    request = new()
    await ledger.open(request)
    clock.now += 10 * JOINABLE
    assert id_of(await ledger.join(*BODY)) == request.id
    await ledger.send(CallId(request.id, 1))
    await ledger.receive(CallId(request.id, 1), receipt())
    await ledger.export(CallId(request.id, 1), "{}")
    clock.now += JOINABLE - 1000
    assert id_of(await ledger.join(*BODY)) == request.id
    clock.now += 1000
    assert await ledger.join(*BODY) is None


async def test_one_that_cost_nothing_or_was_deleted_is_not_joined(ledger: Ledger) -> None:
    await ended(ledger, billed=False)
    deleted = await ended(ledger)
    await ledger.delete(deleted.id)
    assert await ledger.join(*BODY) is None


async def test_an_unknown_outcome_is_joined(ledger: Ledger) -> None:
    request = new()
    await ledger.open(request)
    await ledger.send(CallId(request.id, 1))
    await ledger.lose(CallId(request.id, 1), json.dumps({"code": "outcome_unknown"}))
    assert id_of(await ledger.join(*BODY)) == request.id


@pytest.mark.parametrize("other", [(("x",), ROUTE, "f"), (("-",), "POST /other", "f"), (("-",), ROUTE, "g")])
async def test_another_caller_route_or_body_is_not_joined(
    ledger: Ledger, other: tuple[tuple[str, ...], str, str]
) -> None:
    await ended(ledger)
    assert await ledger.join(*other) is None


async def test_retries_that_race_over_two_processes_begin_one_request(another: Open) -> None:
    both = [await another(), await another()]
    answers = await asyncio.gather(
        *(both[number % 2].open(new(joins=True)) for number in range(20)), return_exceptions=True
    )
    opened = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert all(isinstance(answer, Busy) for answer in answers if isinstance(answer, BaseException))
    assert sum(answer.is_new for answer in opened) == 1
    assert len({answer.request.id for answer in opened}) == 1
