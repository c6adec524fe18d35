"""Money of a day: reserved before a call, then spent, released, or counted as possibly billed."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from service.errors import BudgetExhausted
from service.ledger import statements
from service.ledger.database import Database, Values
from service.ledger.queries import money_of
from service.ledger.rows import CallRow
from service.ledger.statements import ALL

log = logging.getLogger(__name__)

# Called when a call cost more than was reserved for it.
Overspent = Callable[[], None]


def ignore() -> None:
    """Report nothing."""


def day_of(now: int) -> str:
    """The UTC day of a time in microseconds."""
    return datetime.fromtimestamp(now / 1_000_000, UTC).date().isoformat()


@dataclass(frozen=True, slots=True)
class Budgets:
    """Limits of a day in nano-dollars (None: no limit): for all callers together, and for one of them."""

    all: int | None
    own: int | None = None


def reserve(database: Database, principals: tuple[str, ...], amount: int, budgets: Budgets, now: int) -> None:
    """Reserve an amount for all callers and for the first of the principals; raises BudgetExhausted.

    The other principals are what it was before: what they spent counts against its own budget, too.
    """
    _reserve(database, (ALL,), amount, budgets.all, "BUDGET_USD_PER_DAY", now)
    _reserve(database, principals, amount, budgets.own, "the budget of this API key", now)


def _reserve(
    database: Database, principals: tuple[str, ...], amount: int, budget: int | None, name: str, now: int
) -> None:
    """Reserve for the first of the principals, within a budget of them all."""
    day, principal, others = day_of(now), principals[0], principals[1:]
    database.run(statements.OPEN_DAY, {"day": day, "principal": principal})
    own = budget
    if budget is not None and others:
        own = budget - money_of(database, others, day).used
    values: Values = {"day": day, "principal": principal, "reserved": amount, "budget": own}
    if database.run(statements.RESERVE, values) or budget is None:
        return
    today = money_of(database, principals, day)
    only_reserved = today.spent + today.possible + amount <= budget
    seconds = 5 if only_reserved else _seconds_to_midnight(now)
    raise BudgetExhausted(f"{name} does not allow this request", headers={"Retry-After": str(seconds)})


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
    """Move money of all callers and of a principal, in this order as in `reserve`: two transactions that lock the
    rows in unlike orders would wait for each other."""
    values: Values = {"day": day, "reserved": reserved, "spent": spent, "possible": possible}
    for each in (ALL, principal):
        database.run(statements.MOVE_MONEY, {**values, "principal": each})
