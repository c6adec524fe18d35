"""Idempotency-Key and respond-async: a request that is repeated is found again, and paid once."""

import asyncio
import json
from typing import Any

import pytest

from service.emulator.responders import PendingRequest, one_picture, raw
from service.server.keys import ADMISSION, JOBS
from tests.conftest import Serve
from tests.helpers import SCRIPT, Answer, Part, QuickEmulator, Running, assert_problem, picture_bytes, until, upload

pytestmark = pytest.mark.asyncio(loop_scope="session")

JPEG = ("formats", "jpeg")
BASE = picture_bytes()


class Gate:
    """Holds every call until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, pending: PendingRequest) -> Any:
        await self.open.wait()
        return await one_picture(pending)


def keyed(key: str, **more: str) -> dict[str, str]:
    return {"Idempotency-Key": key} | {name.replace("_", "-"): value for name, value in more.items()}


def same(first: Answer, second: Answer) -> None:
    """Assert that both have the same outcome: the second answer is the stored one."""
    assert second.status == first.status
    one, other = first.json, second.json
    one.pop("request_id"), other.pop("request_id")
    assert one == other


async def test_a_repeated_request_is_answered_with_the_first_one_and_costs_nothing(serve: Serve) -> None:
    service = await serve()
    first = await service.thumbnails(JPEG, ("count", "2"), upload(BASE), headers=keyed("a"))
    with service.nothing_spent_or_left():
        second = await service.thumbnails(upload(BASE), ("count", "2"), JPEG, headers=keyed("a"))
    assert first.status == 200
    assert second.json == first.json
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert second.headers["X-Request-Id"] != first.headers["X-Request-Id"]


async def test_a_key_may_stand_in_quotes(serve: Serve) -> None:
    service = await serve()
    await service.thumbnails(JPEG, headers=keyed('"abc"'))
    assert (await service.thumbnails(JPEG, headers=keyed("abc"))).headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize("key", ["", '""', "with space", "ü", "x" * 256, "tab\tinside", '"a b"'])
async def test_a_malformed_key_is_400(service: Running, key: str) -> None:
    head = f"POST /api/thumbnails HTTP/1.1\r\nHost: {service.host}:{service.port}\r\nContent-Length: 0\r\n"
    with service.nothing_spent_or_left():
        answer = await service.raw(f"{head}Idempotency-Key: {key}\r\n\r\n".encode())
    assert_problem(answer, 400, "invalid_idempotency_key")


async def test_two_keys_are_none(service: Running) -> None:
    head = f"POST /api/thumbnails HTTP/1.1\r\nHost: {service.host}:{service.port}\r\nContent-Length: 0\r\n"
    answer = await service.raw(f"{head}Idempotency-Key: a\r\nIdempotency-Key: a\r\n\r\n".encode())
    assert_problem(answer, 400, "invalid_idempotency_key")


@pytest.mark.parametrize(
    "changed",
    [
        [("script", "another"), JPEG],
        [("script", SCRIPT), JPEG, ("count", "01")],
        [("script", SCRIPT), ("formats", "jpg")],
        [("script", SCRIPT), JPEG, upload(picture_bytes(colour="blue"))],
        [("script", SCRIPT), JPEG, ("blend", "0.7")],
    ],
)
async def test_another_body_with_the_same_key_is_refused(serve_all: Serve, changed: Any) -> None:
    service = await serve_all()
    await service.thumbnails(JPEG, headers=keyed("a"))
    with service.nothing_spent_or_left():
        answer = await service.post("/api/thumbnails", *changed, headers=keyed("a"))
    assert_problem(answer, 422, "idempotency_mismatch")


async def test_order_names_of_files_types_and_empty_fields_do_not_count(serve: Serve) -> None:
    service = await serve()
    first = Part("image", BASE, "a.png", ("Content-Type: image/png",))
    second = Part("image", BASE, "b.jpg", ("Content-Type: image/jpeg",))
    one = await service.thumbnails(JPEG, first, headers=keyed("a"))
    other = await service.post(
        "/api/thumbnails",
        second,
        ("matte", ""),
        JPEG,
        ("script", SCRIPT),
        headers=keyed("a", Prefer="handling=lenient"),
    )
    assert other.json == one.json


async def test_while_the_first_runs_the_others_wait_for_the_same_answer(serve: Serve) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate))
    requests = [asyncio.create_task(service.thumbnails(JPEG, ("count", "2"), headers=keyed("a"))) for _ in range(20)]
    await until(lambda: service.emulator.in_flight == 2 and service.app[ADMISSION].inside["thumbnails"] == 20)
    gate.open.set()
    answers = await asyncio.gather(*requests)
    assert service.emulator.requests == 2
    assert len({json.dumps(answer.json) for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    assert len(service.area("output")) == 2


async def test_a_refused_request_does_not_use_its_key_up(serve: Serve) -> None:
    service = await serve(max_requests=1)
    assert (await service.thumbnails(("count", "99"), headers=keyed("a"))).status == 422
    assert (await service.thumbnails(upload(b"no picture" * 9), headers=keyed("a"))).status == 415
    assert (await service.thumbnails(upload(BASE[:60]), headers=keyed("a"))).status == 422
    assert (await service.thumbnails(JPEG, headers=keyed("a"))).headers.get("Idempotency-Replayed") is None


async def test_a_key_is_free_again_when_surely_nothing_was_billed(serve: Serve) -> None:
    service = await serve(QuickEmulator(faults=["bad_key"]))
    first = await service.thumbnails(JPEG, headers=keyed("a"))
    assert first.status == 502
    second = await service.thumbnails(JPEG, headers=keyed("a"))
    assert second.status == 200
    assert "Idempotency-Replayed" not in second.headers


async def test_an_outcome_that_may_have_been_billed_is_replayed_and_not_paid_again(serve: Serve) -> None:
    service = await serve(QuickEmulator(faults=["drop"]))
    first = await service.thumbnails(JPEG, headers=keyed("a"))
    second = await service.thumbnails(JPEG, headers=keyed("a"))
    same(first, second)
    assert_problem(second, 502, "outcome_unknown")
    assert second.json["errors"] == first.json["errors"]
    assert service.emulator.requests == 1


async def test_with_a_key_a_client_that_leaves_changes_nothing(serve: Serve) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate), gemini_concurrency=1)
    request = asyncio.create_task(service.thumbnails(JPEG, ("count", "3"), headers=keyed("a")))
    await until(lambda: service.emulator.in_flight == 1)
    request.cancel()
    gate.open.set()
    again = await service.thumbnails(JPEG, ("count", "3"), headers=keyed("a"))
    assert [each["id"] for each in again.json["variations"]] == ["var-1", "var-2", "var-3"]
    assert service.emulator.requests == 3


async def test_keys_of_two_api_keys_are_two_keys(serve: Serve) -> None:
    keys = ["0123456789abcdef-one", "0123456789abcdef-two"]
    service = await serve(api_keys=",".join(keys))
    answers = [await service.thumbnails(JPEG, headers=keyed("a", Authorization=f"Bearer {key}")) for key in keys]
    assert answers[0].json["request_id"] != answers[1].json["request_id"]
    found = await service.get("/api/thumbnails?idempotency_key=a", Authorization=f"Bearer {keys[0]}")
    assert [each["request_id"] for each in found.json["requests"]] == [answers[0].json["request_id"]]
    other = f"/api/thumbnails/{answers[1].json['request_id']}"
    assert_problem(await service.get(other, Authorization=f"Bearer {keys[0]}"), 404, "not_found")


async def test_a_request_that_is_not_waited_for_is_202_and_goes_on(serve: Serve) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate), public_url="http://127.0.0.1:9999")
    answer = await service.thumbnails(JPEG, ("count", "2"), headers={"Prefer": "wait=10, Respond-Async"})
    request_id = answer.json["request_id"]
    assert answer.status == 202
    assert answer.headers["Location"] == f"http://127.0.0.1:9999/api/thumbnails/{request_id}"
    assert answer.headers["Preference-Applied"] == "respond-async"
    assert (answer.json["state"], answer.json["mode"], answer.json["count"]) == ("running", "async", 2)
    assert service.app[ADMISSION].inside["thumbnails"] == 1
    gate.open.set()
    await until(lambda: not service.app[ADMISSION].inside["thumbnails"])
    status = (await service.get(f"/api/thumbnails/{request_id}")).json
    assert (status["state"], len(status["variations"]), status["errors"]) == ("succeeded", 2, [])


async def test_a_repeated_request_that_is_not_waited_for_is_the_same_202(serve: Serve) -> None:
    service = await serve()
    first = await service.thumbnails(JPEG, headers=keyed("a", Prefer="respond-async"))
    await until(lambda: not service.app[ADMISSION].inside["thumbnails"])
    second = await service.thumbnails(JPEG, headers=keyed("a", Prefer="respond-async"))
    assert (first.status, second.status) == (202, 202)
    assert second.headers["Location"] == first.headers["Location"]
    assert second.headers["Idempotency-Replayed"] == "true"
    assert second.json["state"] == "succeeded"
    waited = await service.thumbnails(JPEG, headers=keyed("a"))
    assert waited.json["request_id"] == first.json["request_id"]


async def test_at_the_drain_unsent_asynchronous_calls_stay_planned(serve: Serve) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate), gemini_concurrency=1)
    answer = await service.thumbnails(JPEG, ("count", "3"), headers={"Prefer": "respond-async"})
    await until(lambda: service.emulator.in_flight == 1)
    service.app[JOBS].drain()
    gate.open.set()
    await until(lambda: not service.app[ADMISSION].inside["thumbnails"])
    status = (await service.get(f"/api/thumbnails/{answer.json['request_id']}")).json
    assert [call["state"] for call in status["calls"]] == ["exported", "planned", "planned"]
    assert status["state"] == "running"
    assert service.emulator.requests == 1


async def test_an_error_status_is_replayed_with_its_errors(serve: Serve) -> None:
    service = await serve(QuickEmulator(then=raw(200, b"{}")))
    first = await service.thumbnails(JPEG, ("count", "2"), headers=keyed("a"))
    second = await service.thumbnails(JPEG, ("count", "2"), headers=keyed("a"))
    assert_problem(second, 502, "bad_reply")
    same(first, second)
    assert [error["storage_path"] for error in second.json["errors"]] == [
        error["storage_path"] for error in first.json["errors"]
    ]


async def test_a_key_of_a_megabyte_is_400(service: Running) -> None:
    head = f"POST /api/thumbnails HTTP/1.1\r\nHost: {service.host}:{service.port}\r\nContent-Length: 0\r\n"
    with service.nothing_spent_or_left():
        answer = await service.raw(f"{head}Idempotency-Key: {'x' * 1_000_000}\r\n\r\n".encode())
    assert answer.status == 400
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_at_the_drain_a_replay_does_not_wait_for_planned_calls(serve: Serve) -> None:
    gate = Gate()
    service = await serve(QuickEmulator(then=gate), gemini_concurrency=1)
    await service.thumbnails(JPEG, ("count", "2"), headers=keyed("a", Prefer="respond-async"))
    await until(lambda: service.emulator.in_flight == 1)
    replay = asyncio.create_task(service.thumbnails(JPEG, ("count", "2"), headers=keyed("a")))
    await until(lambda: service.app[ADMISSION].inside["thumbnails"] == 2)
    service.app[JOBS].drain()
    gate.open.set()
    assert_problem(await replay, 503, "draining")
