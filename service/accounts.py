"""The `usage` command, and where the ledger is, for `check`."""

import json
from collections.abc import Iterable
from contextlib import closing

from service.callers import NAMELESS
from service.gemini.costs import usd
from service.ledger.ledger import ledger_access, open_ledger
from service.ledger.rows import UsageRow
from service.schemas.requests import read_days
from service.schemas.usage import UsageTotal, budget_answer, usage_answer
from service.settings import Settings
from service.streams import print_text

_COLUMNS = ("day", "key", "model", "size", "outcome", "calls", "USD", "possibly billed USD")


def where(settings: Settings) -> str:
    """Open the ledger, check all of it, and return its location; raises SettingsError."""
    access = ledger_access(settings)
    with closing(access.connect()) as database:
        database.check()
    return "PostgreSQL" if access.url else str(access.directory)


async def show_usage(settings: Settings, first: str | None, last: str | None, as_json: bool) -> int:
    """Print the calls of all callers as a table, or as the JSON of /api/usage; raises InvalidField, SettingsError."""
    begin, end = read_days(first, last)
    async with open_ledger(ledger_access(settings)) as ledger:
        rows = await ledger.usage(None, begin, end, by_name=not as_json)
        budget = budget_answer(await ledger.today(), settings.budget_nano)
    answer = usage_answer(begin, end, rows, NAMELESS, budget=budget)
    dumped = answer.model_dump(by_alias=True, exclude={"key_budget"})
    lines = [json.dumps(dumped)] if as_json else _table(rows, answer.total)
    for line in lines:
        print_text(line)
    return 0


def _table(rows: Iterable[UsageRow], total: UsageTotal) -> list[str]:
    cells = [_COLUMNS]
    for row in rows:
        money = (f"{usd(row.cost):.6f}", f"{usd(row.possible):.6f}")
        cells.append((row.day, row.key_name, row.model, row.image_size, row.outcome, str(row.calls), *money))
    cells.append(
        ("total", "", "", "", "", str(total.calls), f"{total.cost_usd:.6f}", f"{total.possibly_billed_usd:.6f}")
    )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
