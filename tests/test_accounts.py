"""The usage command: a table with a row for each name of an API key, or the JSON of /api/usage."""

import json
from pathlib import Path

import pytest

from service.accounts import show_usage
from service.ledger.ledger import ledger_access, open_ledger
from service.ledger.steps import CallId
from service.settings import Settings
from tests.ledger.test_steps import new


@pytest.fixture
async def settings(tmp_path: Path) -> Settings:
    """With a ledger that has a call of a name, and one each of a key without a name and of the command line."""
    settings = Settings(storage_dir=tmp_path, gemini_emulator=True)
    async with open_ledger(ledger_access(settings)) as ledger:
        for principal in ("name:shop", "f" * 32, "cli"):
            request = new(principal=principal)
            await ledger.open(request)
            await ledger.send(CallId(request.id, 1))
            await ledger.lose(CallId(request.id, 1), "{}")
    return settings


async def test_the_table_has_a_column_for_the_name_of_the_key(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await show_usage(settings, None, None, as_json=False) == 0
    head, *rows, total = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert head[:3] == ["day", "key", "model"]
    assert [(row[1], row[5], row[7]) for row in rows] == [("-", "2", "0.067200"), ("shop", "1", "0.033600")]
    assert total == ["total", "3", "0.000000", "0.100800"]


async def test_the_json_is_that_of_the_api(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert await show_usage(settings, None, None, as_json=True) == 0
    usage = json.loads(capsys.readouterr().out)
    assert set(usage) == {"from", "to", "rows", "total", "key", "budget"}
    assert (usage["key"], [row["calls"] for row in usage["rows"]]) == ("-", [3])
    assert usage["budget"]["possibly_billed_usd"] == usage["total"]["possibly_billed_usd"] == 0.1008
