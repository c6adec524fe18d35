"""What belongs to the name of an API key: requests, idempotency keys, budget, usage and the most variations."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from service.ledger.ledger import LedgerAccess
from tests.conftest import Serve
from tests.handlers.test_idempotency import JPEG
from tests.helpers import Answer, QuickEmulator, Running, assert_problem, until
from tests.ledger.conftest import access, postgres_url

__all__ = ["access", "postgres_url"]

pytestmark = pytest.mark.asyncio(loop_scope="session")

ONE, TWO, OTHER = "one-0123456789abcdef", "two-0123456789abcdef", "other-0123456789abcdef"
# Twice its list price, 0.0336 USD, is reserved for a call.
CHEAP = "gemini-3.1-flash-lite-image"


def bearer(key: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} | more


async def thumbnails(service: Running, key: str, *fields: tuple[str, str], **headers: str) -> Answer:
    return await service.thumbnails(JPEG, *fields, headers=bearer(key, **headers))


async def get(service: Running, path: str, key: str) -> Any:
    return (await service.get(path, Authorization=f"Bearer {key}")).json


async def listed(service: Running, key: str) -> list[str]:
    return [each["request_id"] for each in (await get(service, "/api/thumbnails", key))["requests"]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


async def test_requests_belong_to_the_name_whichever_of_its_keys_is_sent(serve: Serve) -> None:
    service = await serve(api_keys=f"app:{ONE},app:{TWO},other:{OTHER}")
    made = (await thumbnails(service, ONE)).json["request_id"]
    assert await listed(service, TWO) == [made]
    assert (await get(service, f"/api/thumbnails/{made}", TWO))["request_id"] == made
    assert await listed(service, OTHER) == []
    assert_problem(await service.get(f"/api/thumbnails/{made}", **bearer(OTHER)), 404, "not_found")


async def test_a_name_sees_what_its_keys_made_before_they_had_it_while_they_are_its_keys(serve: Serve) -> None:
    service = await serve(api_keys=f"{ONE},{OTHER}")
    before = (await thumbnails(service, ONE, **{"Idempotency-Key": "a"})).json
    usage = await get(service, "/api/usage", ONE)
    assert usage["key"] == "-"
    named = await serve(api_keys=f"app:{ONE},app:{TWO},other:{OTHER}")
    assert await listed(named, TWO) == [before["request_id"]]
    by_key = await get(named, "/api/thumbnails?idempotency_key=a", TWO)
    assert by_key["requests"][0]["request_id"] == before["request_id"]
    assert (await get(named, "/api/usage", TWO))["total"] == usage["total"]
    replayed = await thumbnails(named, TWO, **{"Idempotency-Key": "a"})
    assert (replayed.json, replayed.headers["Idempotency-Replayed"]) == (before, "true")
    assert await listed(named, OTHER) == []
    made = (await thumbnails(named, ONE)).json["request_id"]
    rotated = await serve(api_keys=f"app:{TWO}")
    assert await listed(rotated, TWO) == [made]


async def test_a_removed_key_is_refused_and_a_new_one_is_known_within_seconds(serve: Serve, file: Path) -> None:
    file.write_text(f"app:{ONE}\n")
    service = await serve(api_keys_file=file)
    made = (await thumbnails(service, ONE)).json["request_id"]
    file.write_text(f"app:{TWO}\n")

    async def statuses() -> list[int]:
        return [(await service.get("/api/thumbnails", **bearer(key))).status for key in (ONE, TWO)]

    async with asyncio.timeout(20):
        while await statuses() != [401, 200]:
            await asyncio.sleep(0.05)
    assert await listed(service, TWO) == [made]


async def test_a_broken_key_file_is_told_by_readyz_which_stays_200(serve: Serve, file: Path) -> None:
    file.write_text(f"app:{ONE}\n")
    service = await serve(api_keys_file=file)
    assert (await service.get("/readyz")).json["checks"]["keys"] == "ok"
    file.write_text(f"app:{ONE} rate=1\n")

    async def state() -> str:
        answer = await service.get("/readyz")
        assert answer.status == 200
        return str(answer.json["checks"]["keys"])

    async with asyncio.timeout(20):
        while "line 1: rate must be" not in await state():
            await asyncio.sleep(0.05)
    assert (await service.get("/api/thumbnails", **bearer(ONE))).status == 200


async def test_a_key_may_ask_for_fewer_variations_than_others(serve: Serve, file: Path) -> None:
    file.write_text(f"app:{ONE} max_variations=2\n{OTHER} max_variations=9\n")
    service = await serve(api_keys_file=file, max_variations=3)
    with service.nothing_spent_or_left():
        assert_problem(await thumbnails(service, ONE, ("count", "3")), 422, "invalid_field", "count", "1 to 2")
        assert_problem(await thumbnails(service, OTHER, ("count", "4")), 422, "invalid_field", "count", "1 to 3")
    assert len((await thumbnails(service, ONE, ("count", "2"))).json["variations"]) == 2


# Money


async def test_over_its_own_budget_a_name_is_429_while_others_go_on(serve: Serve, file: Path) -> None:
    file.write_text(f"app:{ONE} budget=0.07\napp:{TWO}\nother:{OTHER}\nplain-0123456789 budget=0.05\n")
    service = await serve(api_keys_file=file, gemini_model=CHEAP, budget_usd_per_day=10)
    assert (await thumbnails(service, ONE)).status == 200
    refused = await thumbnails(service, TWO)
    problem = assert_problem(refused, 429, "budget_exhausted", "the budget of this API key")
    assert (problem["billed"], problem["retryable"]) == (False, True)
    assert 5 < int(refused.headers["Retry-After"]) <= 86_400
    assert (await thumbnails(service, OTHER)).status == 200
    assert_problem(await thumbnails(service, "plain-0123456789"), 429, "budget_exhausted")
    usage = await get(service, "/api/usage", TWO)
    assert usage["key"] == "app"
    assert "budget" not in usage
    assert usage["key_budget"]["usd_per_day"] == 0.07
    assert usage["key_budget"]["spent_usd"] == usage["total"]["cost_usd"] > 0
    assert usage["key_budget"]["reserved_usd"] == 0
    assert usage["key_budget"]["left_usd"] == pytest.approx(0.07 - usage["total"]["cost_usd"], abs=3e-6)
    others = await get(service, "/api/usage", OTHER)
    assert (others["key"], "key_budget" in others) == ("other", False)
    assert others["budget"]["spent_usd"] == pytest.approx(2 * usage["total"]["cost_usd"], abs=3e-6)


async def test_what_a_key_spent_before_it_had_a_name_counts_against_the_budget_of_the_name(
    serve: Serve, file: Path
) -> None:
    spent = (await thumbnails(await serve(api_keys=ONE, gemini_model=CHEAP), ONE)).json
    file.write_text(f"app:{ONE} budget=0.07\n")
    service = await serve(api_keys_file=file, gemini_model=CHEAP)
    assert_problem(await thumbnails(service, ONE), 429, "budget_exhausted")
    usage = await get(service, "/api/usage", ONE)
    assert usage["key_budget"]["spent_usd"] == spent["variations"][0]["metadata"]["cost_usd"]


async def test_with_a_budget_of_its_own_a_key_may_ask_for_models_with_a_price_only(serve: Serve, file: Path) -> None:
    file.write_text(f"app:{ONE} budget=5\nother:{OTHER}\n")
    service = await serve(api_keys_file=file)
    answer = await thumbnails(service, ONE, ("model", "another-model"))
    assert_problem(answer, 422, "unpriced_model", "another-model")
    assert (await thumbnails(service, OTHER, ("model", "another-model"))).status == 200


async def test_a_hundred_racing_requests_never_pass_the_budget_of_their_name_over_two_services(
    serve: Serve, file: Path, access: LedgerAccess
) -> None:
    file.write_text(f"app:{ONE} budget=0.5\napp:{TWO}\n")
    emulator = QuickEmulator()
    shared: dict[str, Any] = {"api_keys_file": file, "gemini_model": CHEAP, "database_url": access.url or None}
    service = await serve(emulator, **shared)
    both = service, await serve(gemini_base_url=service.settings.gemini_base_url, **shared)
    asked = [(both[n % 2], (ONE, TWO)[n // 2 % 2]) for n in range(100)]
    answers = await asyncio.gather(*(thumbnails(each, key, ("width", "64")) for each, key in asked))
    statuses = [answer.status for answer in answers]
    assert set(statuses) == {200, 429}
    assert emulator.requests == statuses.count(200)
    await until(lambda: emulator.in_flight == 0)
    budget = (await get(service, "/api/usage", ONE))["key_budget"]
    assert budget["reserved_usd"] == 0
    # Seven reservations of twice the list price have room at once.
    assert 7 * 0.0336 <= budget["spent_usd"] <= 0.5
