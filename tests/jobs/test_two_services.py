"""Two services on one storage directory and one ledger."""

import asyncio
import json

import pytest

from service.emulator.responders import PendingRequest, one_picture, raw
from service.server.keys import ADMISSION
from tests.handlers.test_events import events
from tests.handlers.test_idempotency import JPEG, Gate, keyed
from tests.helpers import QuickEmulator, until
from tests.jobs.conftest import ServeTwo

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_one_key_over_both_is_one_request(serve_two: ServeTwo) -> None:
    emulator = QuickEmulator()
    both = await serve_two(emulator)
    fields = (JPEG, ("count", "2"))
    answers = await asyncio.gather(*(both[n % 2].thumbnails(*fields, headers=keyed("a")) for n in range(50)))
    assert emulator.requests == 2
    assert {answer.status for answer in answers} == {200}
    assert len({json.dumps(answer.json) for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1


async def test_each_shows_and_follows_the_requests_of_the_other(serve_two: ServeTwo) -> None:
    gate = Gate()
    one, other = await serve_two(QuickEmulator(then=gate))
    path = f"/api/thumbnails/{(await one.thumbnails(JPEG, headers={'Prefer': 'respond-async'})).json['request_id']}"
    following = asyncio.create_task(events(other, path.rpartition("/")[2]))
    await until(lambda: other.app[ADMISSION].inside["download"] == 1)
    assert (await other.get(path)).json["state"] == "running"
    gate.open.set()
    assert [kind for _, kind, _ in await following] == ["sent", "received", "exported", "done"]
    status = (await other.get(path)).json
    assert status == (await one.get(path)).json
    assert status["state"] == "succeeded"


@pytest.mark.parametrize("by", [0, 1], ids=["its own", "the other"])
async def test_a_call_that_is_refused_after_a_service_cancelled_its_request_is_cancelled(
    serve_two: ServeTwo, by: int
) -> None:
    gate = asyncio.Event()

    async def refused_first(pending: PendingRequest) -> object:
        await gate.wait()
        return await (raw(429, b"{}") if emulator.requests == 1 else one_picture)(pending)

    emulator = QuickEmulator(then=refused_first)
    one, other = both = await serve_two(emulator)
    path = f"/api/thumbnails/{(await one.thumbnails(JPEG, headers={'Prefer': 'respond-async'})).json['request_id']}"
    await until(lambda: emulator.in_flight == 1)
    assert (await both[by].ask("POST", f"{path}/cancel")).json["state"] == "running"
    gate.set()
    await until(lambda: not one.app[ADMISSION].inside["thumbnails"])
    status = (await other.get(path)).json
    assert (status["state"], status["errors"][0]["code"]) == ("cancelled", "cancelled")
    assert [kind for _, kind, _ in await events(other, status["request_id"])] == ["sent", "failed", "done"]
    assert emulator.requests == 1
