"""Pydantic models of calls and money per day, and functions that make them from ledger rows."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from service.gemini.costs import usd
from service.ledger.rows import DayRow, UsageRow
from service.schemas.answers import Answer

# A UTC day.
Day = Annotated[str, Field(json_schema_extra={"format": "date"})]


class UsageAnswerRow(Answer):
    day: Day
    model: str
    image_size: str
    tier: str
    outcome: Literal["exported", "failed", "unknown", "open"]
    calls: int
    cost_usd: float
    possibly_billed_usd: float


class UsageTotal(Answer):
    calls: int
    pictures: int
    cost_usd: float
    possibly_billed_usd: float
    unpriced_calls: int
    estimated_calls: int


class BudgetAnswer(Answer):
    """The budget of a day, and what is left of it."""

    usd_per_day: float | None
    day: Day
    spent_usd: float
    reserved_usd: float
    possibly_billed_usd: float
    left_usd: float | None


class UsageAnswer(Answer):
    """Calls and money of some days, both included."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    first: Day = Field(serialization_alias="from")
    to: Day
    rows: list[UsageAnswerRow]
    total: UsageTotal
    key: str
    budget: BudgetAnswer | None = None
    key_budget: BudgetAnswer | None = None


def usage_answer(
    first: str,
    last: str,
    rows: Sequence[UsageRow],
    key: str,
    *,
    budget: BudgetAnswer | None = None,
    key_budget: BudgetAnswer | None = None,
) -> UsageAnswer:
    """`key` is the name of the caller's API key; one of the budgets is given, that of all or that of the key."""
    return UsageAnswer(
        first=first,
        to=last,
        rows=[_usage_row(row) for row in rows],
        total=UsageTotal(
            calls=sum(row.calls for row in rows),
            pictures=sum(row.pictures for row in rows),
            cost_usd=usd(sum(row.cost for row in rows)),
            possibly_billed_usd=usd(sum(row.possible for row in rows)),
            unpriced_calls=sum(row.unpriced for row in rows),
            estimated_calls=sum(row.estimated for row in rows),
        ),
        key=key,
        budget=budget,
        key_budget=key_budget,
    )


def budget_answer(today: DayRow, budget: int | None) -> BudgetAnswer:
    """`budget` of a day in nano-dollars, None without one."""
    left = None if budget is None else max(0, budget - today.used)
    return BudgetAnswer(
        usd_per_day=None if budget is None else usd(budget),
        day=today.day,
        spent_usd=usd(today.spent),
        reserved_usd=usd(today.reserved),
        possibly_billed_usd=usd(today.possible),
        left_usd=None if left is None else usd(left),
    )


def _usage_row(row: UsageRow) -> UsageAnswerRow:
    members = asdict(row) | {"cost_usd": usd(row.cost), "possibly_billed_usd": usd(row.possible)}
    return UsageAnswerRow.model_validate({name: members[name] for name in UsageAnswerRow.model_fields})
