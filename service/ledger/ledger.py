"""The ledger's interface: each method is one step, which is durable when it returns."""

import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from service.errors import ServiceError, SettingsError
from service.ledger import queries, retries, statements, steps
from service.ledger.database import NAME, Database, connect, connect_buckets
from service.ledger.money import Overspent, day_of, ignore
from service.ledger.owners import as_owner, bury, dead_owners, leave
from service.ledger.queries import NamedArea, Principals
from service.ledger.rows import CallRow, DayRow, EventRow, RequestRow, UsageRow, microseconds
from service.ledger.steps import CallId, Failure, NewRequest, Opened, Receipt, Rules
from service.ledger.writer import Writer
from service.settings import Settings
from service.store.layout import AREAS, part_key, spill_key

log = logging.getLogger(__name__)

HEALABLE = 10_000
# Files looked up in one step, which takes 5 ms.
LOOKUPS = 250
HOUR = 3600 * 1_000_000
DAY = 24 * HOUR

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class LedgerAccess:
    """The location of the ledger, and its rules.

    `url` empty: an SQLite file below `directory`, which must not lie in one of the `swept` directories.
    """

    directory: Path
    rules: Rules
    url: str = field(default="", repr=False)
    swept: tuple[Path, ...] = ()

    def connect(self, *, read_only: bool = False) -> Database:
        """Open it, and bring its tables up to date; raises SettingsError, one line without a password. Blocks."""
        directory = self.directory.resolve()
        for swept in () if self.url else self.swept:
            if directory.is_relative_to(swept.resolve()):
                raise SettingsError(f"LEDGER_DIR={str(directory)!r} lies in {str(swept)!r}, which is swept")
        return connect(self.url, self.directory, read_only=read_only)

    def connect_buckets(self) -> Database:
        """Open the token buckets of this ledger; raises SettingsError. Blocks."""
        return connect_buckets(self.url, self.directory)


def ledger_access(settings: Settings) -> LedgerAccess:
    """The location and rules of the ledger by the settings."""
    rules = Rules(round(settings.idempotency_key_hours * HOUR), settings.budget_nano)
    url = settings.database_url.get_secret_value() if settings.database_url else ""
    return LedgerAccess(settings.ledger_directory, rules, url, tuple(map(settings.area, AREAS)))


class Ledger:
    """Rows of requests, calls, events and money, written by one thread.

    Every method raises StorageFull or StorageUnavailable when the database refuses; then nothing was written. A step
    returns False if the state or the owner of the call does not allow it: then nothing was written either.
    """

    def __init__(
        self,
        writer: Writer,
        owner: str,
        rules: Rules,
        overspent: Overspent = ignore,
        clock: Callable[[], int] = microseconds,
    ) -> None:
        """`overspent` is called when a call cost more than was reserved for it."""
        self.owner = owner
        self._overspent = overspent
        self._writer = writer
        self._rules = rules
        self._clock = clock

    async def _step(self, step: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._writer.run(lambda database: step(database, *args, **kwargs))

    # Steps of the requests that this process owns

    async def open(self, new: NewRequest) -> Opened:
        """Write a request before anything is spent, or find the one that holds its key; raises BudgetExhausted."""
        now = self._clock()
        return await self._step(steps.open_request, new, self.owner, self._rules, now)

    async def send(self, call: CallId) -> bool:
        now = self._clock()
        return await self._step(steps.send, call, self.owner, now)

    async def refuse(self, call: CallId) -> bool:
        return await self._step(steps.refuse, call, self.owner)

    async def receive(self, call: CallId, receipt: Receipt) -> bool:
        now = self._clock()
        return await self._step(steps.receive, call, self.owner, receipt, now, self._overspent)

    async def export(self, call: CallId, result: str, receipt: Receipt | None = None) -> bool:
        now = self._clock()
        return await self._step(steps.export, call, self.owner, result, now, receipt, self._overspent)

    async def fail(self, call: CallId, failure: Failure) -> bool:
        now = self._clock()
        return await self._step(steps.fail, call, self.owner, failure, now, self._overspent)

    async def lose(self, call: CallId, error: str) -> bool:
        now = self._clock()
        return await self._step(steps.lose, call, self.owner, error, now)

    async def cancel(self, call: CallId, error: str) -> bool:
        """Cancel a planned call of any process."""
        now = self._clock()
        return await self._step(steps.cancel, call, None, error, now)

    async def cancel_own(self, call: CallId, error: str) -> bool:
        """Cancel a planned call, unless another process owns it by now."""
        now = self._clock()
        return await self._step(steps.cancel, call, self.owner, error, now)

    # Reading

    async def request(self, request_id: str) -> tuple[RequestRow, list[CallRow]] | None:
        """A request and its calls; None if there is none, or it was deleted."""
        return await self._step(queries.request_with_calls, request_id)

    async def holder(self, principals: tuple[str, ...], route: str, key: str) -> RequestRow | None:
        """The request that holds an idempotency key."""
        return await self._step(steps.holder_of_key, principals, route, key, self._rules, self._clock())

    async def join(self, principals: tuple[str, ...], route: str, fingerprint: str) -> RequestRow | None:
        """The request with this body that an automatic retry repeats, which is noted as joined."""
        return await self._step(retries.join, principals, route, fingerprint, self._clock())

    async def deliver(self, request_id: str) -> None:
        """Note that a client received the answer in whole."""
        await self._step(retries.deliver, request_id, self._clock())

    async def newest(
        self, principals: Principals, limit: int, before: RequestRow | None = None
    ) -> list[tuple[RequestRow, list[CallRow]]]:
        """The newest requests of these principals (None: of all), those older than `before`, and their calls."""
        return await self._step(queries.newest, principals, limit, before)

    async def newest_of_key(
        self, principals: Principals, route: str, key: str
    ) -> tuple[RequestRow, list[CallRow]] | None:
        """The newest request that was made with an idempotency key, whether it still holds the key or not."""
        return await self._step(queries.newest_of_key, principals, route, key)

    async def events(self, request_id: str, after: int, limit: int = 100) -> list[EventRow]:
        return await self._step(queries.events_after, request_id, after, limit)

    async def usage(self, principals: Principals, first: str, last: str, *, by_name: bool = False) -> list[UsageRow]:
        """Calls and money of the UTC days `first` to `last`, of these principals or (None) of all.

        Only with `by_name` are the rows those of one name each.
        """
        return await self._step(queries.usage, principals, first, last, by_name=by_name)

    async def today(self, principals: tuple[str, ...] = (statements.ALL,)) -> DayRow:
        """The money of these principals, or of all, in the current UTC day."""
        day = day_of(self._clock())
        return await self._step(queries.money_of, principals, day)

    async def states(self) -> dict[str, int]:
        """How many calls are in each state."""
        return await self._writer.run(lambda db: dict(db.run(statements.COUNT_STATES)))

    async def mark_cancelled(self, request_id: str) -> None:
        now = self._clock()
        await self._writer.run(lambda db: db.run(statements.CANCEL_REQUEST, {"id": request_id, "now": now}))

    async def delete(self, request_id: str) -> None:
        """Blank the order and the answers of a request; its calls and their costs stay."""
        now = self._clock()
        await self._step(steps.delete, request_id, now)

    async def forget(self, finished_before: int) -> None:
        """Remove requests that ended before then (microseconds), unless their key is still held."""
        created_before = self._clock() - self._rules.key_lifetime
        await self._writer.run(
            lambda db: db.run(
                statements.FORGET_REQUESTS, {"finished_before": finished_before, "created_before": created_before}
            )
        )

    # Recovery

    async def dead_owners(self) -> list[str]:
        """Owners whose process has ended; until `bury`, no other process can take them over."""
        return await self._step(dead_owners, self.owner)

    async def take_over(self, dead: str) -> list[tuple[RequestRow, list[CallRow]]]:
        """Become the owner of the open requests of a dead one, and return them with their calls."""
        return await self._step(steps.take_over, dead, self.owner)

    async def bury(self, dead: str) -> None:
        """Remove a dead owner whose requests were taken over."""
        await self._step(bury, dead)

    async def healable(self) -> list[tuple[RequestRow, CallRow]]:
        """Unknown calls and those with a missing raw, at most the newest HEALABLE, with their requests."""
        return await self._step(queries.healable, HEALABLE)

    async def unnamed(self, area: NamedArea, names: Sequence[str]) -> list[str]:
        """Those of the files in an area that no row names: looked up by name, for there are many more rows than files.

        In several steps, between which others commit.
        """
        found: list[str] = []
        for start in range(0, len(names), LOOKUPS):
            found += await self._step(queries.unnamed, area, names[start : start + LOOKUPS])
        return found

    async def received_raws(self) -> list[str]:
        """The keys of raws whose exports are not made yet."""
        return [key for (key,) in await self._writer.run(lambda db: db.run(statements.RECEIVED_RAWS))]

    async def temp_names(self) -> set[str]:
        """The names in temp/ that calls which are out may write, whatever process made them."""
        calls = await self._step(queries.sending)
        return {key.partition("/")[2] for call in calls for key in (part_key(*call), spill_key(*call))}

    async def probe(self) -> None:
        """Raises StorageFull or StorageUnavailable while the database refuses commits."""
        await self._writer.probe()

    async def protected(self) -> set[str]:
        """Keys that no sweep may remove: raws without exports, uploads of requests that have not ended."""
        return await self._step(queries.protected)


def read_protected(access: LedgerAccess) -> set[str]:
    """The same as `Ledger.protected`, for a process that only sweeps; raises SettingsError, StorageUnavailable."""
    if not access.url and not (access.directory / NAME).exists():
        return set()
    database = access.connect(read_only=True)
    try:
        return queries.protected(database)
    finally:
        database.close()


@contextlib.asynccontextmanager
async def open_ledger(
    access: LedgerAccess,
    committed: Callable[[float | None], None] = lambda seconds: None,
    overspent: Overspent = ignore,
) -> AsyncIterator[Ledger]:
    """Open the ledger, with this process as the owner of new requests; raises SettingsError, one line.

    `committed` is as for `Writer`, `overspent` as for `Ledger`; both are called in the writer's thread.
    """
    owner = secrets.token_hex(16)
    writer = Writer(lambda: as_owner(owner, access.connect()), committed)
    await writer.start()
    try:
        yield Ledger(writer, owner, access.rules, overspent)
        try:
            await writer.run(lambda database: leave(database, owner))
        except ServiceError as error:
            log.warning("this process is left in the ledger: %s", error.detail)
    finally:
        await writer.close()
