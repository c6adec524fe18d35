"""Money of a day: reserved before a call, then spent, released, or counted as possibly billed."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from service.errors import BudgetExhausted
from service.ledger import statements
from service.ledger.database import Database, Values, read
from service.ledger.rows import CallRow, DayRow

log = logging.getLogger(__name__)

# Called when a call cost more than was reserved for it.
Overspent = Callable[[], None]


def ignore() -> None:
    """Report nothing."""


def day_of(now: int) -> str:
    """The UTC day of a time in microseconds."""
    return datetime.fromtimestamp(now / 1_000_000, UTC).date().isoformat()


def reserve(database: Database, principal: str, amount: int, budget: int | None, now: int) -> None:
    """Reserve an amount for a principal and for all; raises BudgetExhausted if the budget of all does not allow it."""
    day = day_of(now)
    for each in ("", principal):
        database.run(statements.OPEN_DAY, {"day": day, "principal": each})
    if budget is not None:
        values: Values = {"day": day, "reserved": amount, "budget": budget}
        if not database.run(statements.RESERVE, values):
            today = next(read(database, DayRow, statements.READ_DAY, {"day": day, "principal": ""}))
            only_reserved = today.spent + today.possible + amount <= budget
            raise _over_budget(5 if only_reserved else _seconds_to_midnight(now))
        database.run(statements.RESERVE_OWN, {"day": day, "principal": principal, "reserved": amount})
    else:
        _move(database, day, principal, reserved=amount)


def _over_budget(seconds: int) -> BudgetExhausted:
    return BudgetExhausted("BUDGET_USD_PER_DAY does not allow this request", headers={"Retry-After": str(seconds)})


def _seconds_to_midnight(now: int) -> int:
    return 86_400 - now // 1_000_000 % 86_400


def settle(
    database: Database, was: CallRow, cost: int | None, possible: int = 0, overspent: Overspent = ignore
) -> None:
    """Release what was reserved for a call, and count its cost, or its list price as possibly billed."""
    if was.reserved and (cost or 0) > was.reserved:
        log.warning("a call cost %d nano-dollars, and only %d were reserved for it", cost, was.reserved)
        overspent()
    moved = {"reserved": -was.reserved, "spent": (cost or 0) - (was.cost or 0), "possible": possible - was.possible}
    _move(database, was.day, was.principal, **moved)
    money = {"reserved": 0, "possible": possible, "cost": cost}
    database.run(
        statements.PRICE, {"request_id": was.request_id, "number": was.number, "attempt": was.attempt, **money}
    )


def _move(database: Database, day: str, principal: str, reserved: int = 0, spent: int = 0, possible: int = 0) -> None:
    values: Values = {
        "day": day,
        "principal": principal,
        "reserved": reserved,
        "spent": spent,
        "possible": possible,
    }
    database.run(statements.MOVE_MONEY, values)
