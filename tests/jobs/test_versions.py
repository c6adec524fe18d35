"""Ledgers that released versions wrote, one file each: replay, status, export again and recovery read them."""

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from service.ledger.database import NAME
from service.settings import Settings
from tests.conftest import MakeSettings, Serve
from tests.handlers.test_events import events
from tests.handlers.test_idempotency import JPEG, keyed
from tests.helpers import Running, assert_problem, until_async
from tests.jobs.test_recovery import PICTURE, put

pytestmark = pytest.mark.asyncio(loop_scope="session")

DATA = Path(__file__).parents[1] / "ledger" / "data"


def as_written(stored: Any) -> Any:
    return stored


def as_a_later_version_would(stored: Any) -> Any:
    """With members that are unknown here, in every object but the exports by format and the headers by name."""
    if isinstance(stored, dict):
        changed = {name: as_a_later_version_would(value) for name, value in stored.items() if name != "headers"}
        return changed if "jpeg" in stored else changed | {"later": {"x": [1]}}
    return [as_a_later_version_would(each) for each in stored] if isinstance(stored, list) else stored


def without_optional_members(stored: Any) -> Any:
    """Without those that have a default."""
    optional = {"version", "reference", "image_size", "headers", "retryable", "base", "plan"}
    return {name: value for name, value in stored.items() if name not in optional}


@pytest.fixture(params=[as_written, as_a_later_version_would, without_optional_members])
def change(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    changed: Callable[[Any], Any] = request.param
    return changed


def restore(settings: Settings, dump: Path, change: Callable[[Any], Any]) -> None:
    """Make the ledger of a dump, as if its requests had been made now, and the raws that it names."""

    def changed(*texts: Any) -> str:
        return json.dumps(change(json.loads(texts[0])))

    directory = settings.ledger_directory
    directory.mkdir(parents=True)
    with contextlib.closing(apsw.Connection(str(directory / NAME))) as connection:
        connection.execute(dump.read_text())
        connection.create_scalar_function("change", changed)
        connection.execute("UPDATE requests SET spec = change(spec), created = ?", (time.time_ns() // 1000,))
        connection.execute("UPDATE calls SET result = change(result) WHERE result IS NOT NULL")
        connection.execute("UPDATE calls SET error = change(error) WHERE error IS NOT NULL")
        for (raw,) in connection.execute("SELECT raw FROM calls WHERE raw IS NOT NULL"):
            put(settings, raw, PICTURE)


async def by_key(service: Running, key: str) -> dict[str, Any]:
    [status] = (await service.get(f"/api/thumbnails?idempotency_key={key}")).json["requests"]
    return dict(status)


@pytest.mark.parametrize("dump", sorted(DATA.glob("*.sql")), ids=lambda path: path.stem)
async def test_every_released_ledger_goes_on(
    make_settings: MakeSettings, serve: Serve, dump: Path, change: Callable[[Any], Any]
) -> None:
    restore(make_settings(), dump, change)
    service = await serve()

    async def recovered() -> bool:
        requests = (await service.get("/api/thumbnails")).json["requests"]
        return len(requests) == 6 and all(each["state"] != "running" for each in requests)

    await until_async(recovered)
    # The call that was planned, and no other.
    assert service.emulator.requests == 1
    assert (await by_key(service, "planned"))["state"] == "succeeded"

    done = await service.thumbnails(JPEG, headers=keyed("done"))
    assert (done.status, done.headers["Idempotency-Replayed"]) == (200, "true")
    assert done.json["variations"] == (await by_key(service, "done"))["variations"]
    assert done.json["variations"][0]["exports"]["jpeg"]["url"] is None
    # Members that came later.
    variation = done.json["variations"][0]
    assert (variation["metadata"]["c2pa"], variation["metadata"]["digital_source_type"]) == (None, None)
    assert (variation["exports"]["jpeg"]["quality"], variation["exports"]["jpeg"]["colors"]) == (None, None)
    assert variation["exports"]["jpeg"]["frames"] == 1
    lost = await service.thumbnails(JPEG, headers=keyed("lost"))
    assert_problem(lost, 502, "outcome_unknown")
    assert (await by_key(service, "failed"))["errors"][0]["code"] == "blocked"
    again = await service.post(f"/api/thumbnails/{done.json['request_id']}/variations/var-1/exports")
    assert again.status == 200
    assert list(again.json["exports"]) == ["jpeg"]
    seen = await events(service, done.json["request_id"])
    assert [kind for _, kind, _ in seen] == ["sent", "received", "exported", "done"]
    assert seen[2][2]["variation"] == done.json["variations"][0]
    assert service.emulator.requests == 1
