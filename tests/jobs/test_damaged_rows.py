"""Stored JSON that cannot be read is an error of its variation: everything else is answered."""

import logging
from typing import Any

import pytest

from service.emulator.responders import raw
from service.server.keys import LEDGER
from tests.conftest import Serve
from tests.handlers.test_events import events
from tests.handlers.test_idempotency import JPEG, keyed
from tests.helpers import QuickEmulator, Running, assert_problem

pytestmark = pytest.mark.asyncio(loop_scope="session")

DAMAGED = ["", "{", "[]", "null", "7", '{"version": 1}', '{"id": [], "code": 5}']


async def damage(service: Running, statement: str, text: str) -> None:
    values = {"text": text}
    await service.app[LEDGER]._writer.run(lambda database: database.run(statement, values))


@pytest.mark.parametrize("text", DAMAGED[1:])
async def test_an_answer_that_cannot_be_read_is_an_error_of_its_variation(
    serve: Serve, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    service = await serve()
    good = await service.thumbnails(JPEG)
    first = await service.thumbnails(JPEG, ("count", "2"), headers=keyed("a"))
    await damage(service, "UPDATE calls SET result = :text WHERE number = 2", text)
    with caplog.at_level(logging.ERROR):
        damaged, other = (await service.get("/api/thumbnails")).json["requests"]
    assert other["variations"] == good.json["variations"]
    assert damaged["variations"] == first.json["variations"][:1]
    [error] = damaged["errors"]
    assert (error["id"], error["code"], error["status"], error["billed"]) == ("var-2", "no_export", 502, True)
    assert error["storage_path"] == f"generated/{damaged['request_id']}_2.png"
    assert f"{damaged['request_id']}, var-2: the stored answer cannot be read" in caplog.text
    again = await service.thumbnails(JPEG, ("count", "2"), headers=keyed("a"))
    assert (again.json["variations"], again.json["errors"]) == (damaged["variations"], damaged["errors"])
    assert [kind for _, kind, _ in await events(service, damaged["request_id"])].count("exported") == 2
    exported = await service.post(f"/api/thumbnails/{damaged['request_id']}/variations/var-2/exports")
    assert exported.status == 200
    assert (await service.ask("DELETE", f"/api/thumbnails/{damaged['request_id']}")).status == 204
    assert service.area("output") == sorted(
        [*(each["file_path"].removeprefix("output/") for each in good.json["variations"][0]["exports"].values()),
         *(each["file_path"].removeprefix("output/") for each in exported.json["exports"].values())]
    )  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED[1:])
async def test_an_error_that_cannot_be_read_is_an_internal_one(serve: Serve, text: str) -> None:
    service = await serve(QuickEmulator(then=raw(400, b"{}")))
    await service.thumbnails(JPEG)
    await damage(service, "UPDATE calls SET error = :text", text)
    await damage(service, "UPDATE events SET data = :text WHERE data IS NOT NULL", text)
    [status] = (await service.get("/api/thumbnails")).json["requests"]
    [error] = status["errors"]
    assert (error["code"], error["billed"], status["state"]) == ("internal", False, "failed")
    seen: dict[str, Any] = {kind: data for _, kind, data in await events(service, status["request_id"])}
    assert seen["failed"]["error"]["code"] == "internal"
    assert (seen["done"]["state"], seen["done"]["cost_usd"]) == ("failed", 0.0)


@pytest.mark.parametrize("text", DAMAGED[:5])
async def test_an_order_that_cannot_be_read_has_no_script_and_exports_nothing_again(serve: Serve, text: str) -> None:
    service = await serve()
    answer = await service.thumbnails(JPEG)
    await damage(service, "UPDATE requests SET spec = :text", text)
    [status] = (await service.get("/api/thumbnails")).json["requests"]
    assert (status["script"], status["variations"]) == ("", answer.json["variations"])
    path = f"/api/thumbnails/{status['request_id']}/variations/var-1"
    assert_problem(await service.post(f"{path}/exports"), 502, "no_export")
    assert (await service.get(f"{path}/raw")).status == 200
