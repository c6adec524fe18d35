"""The `usage` command, and where the ledger is, for `check`."""

import json
from contextlib import closing

from service.ledger.ledger import ledger_access, open_ledger
from service.schemas.requests import read_days
from service.schemas.status import UsageAnswer, usage_answer
from service.settings import Settings
from service.streams import print_text

_COLUMNS = ("day", "model", "size", "outcome", "calls", "USD", "possibly billed USD")


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
        rows = await ledger.usage(None, begin, end)
        answer = usage_answer(begin, end, rows, await ledger.today(), settings.budget_nano)
    lines = [json.dumps(answer.model_dump(by_alias=True))] if as_json else _table(answer)
    for line in lines:
        print_text(line)
    return 0


def _table(answer: UsageAnswer) -> list[str]:
    cells = [_COLUMNS]
    for row in answer.rows:
        money = (f"{row.cost_usd:.6f}", f"{row.possibly_billed_usd:.6f}")
        cells.append((row.day, row.model, row.image_size, row.outcome, str(row.calls), *money))
    total = answer.total
    cells.append(("total", "", "", "", str(total.calls), f"{total.cost_usd:.6f}", f"{total.possibly_billed_usd:.6f}"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
