"""Group commit: one thread uses the database, and commits all steps that wait as one transaction."""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, Generic, TypeVar

from service.errors import ServiceError, SettingsError, StorageFull, StorageUnavailable
from service.ledger import statements
from service.ledger.database import Database

log = logging.getLogger(__name__)

T = TypeVar("T")

# A commit costs an fsync, which all waiting steps share; in a larger group the first would wait for the last.
MAX_GROUP = 256
# Several times as many as there can be requests and calls at once.
MAX_WAITING = 100_000
# An upper bound of what one step writes: a call with its result.
PROBE_BYTES = 16 * 1024
MAINTENANCE_SECONDS = 3600.0


@dataclass(eq=False, slots=True)
class _Step(Generic[T]):
    """A function to run in a transaction, and the future that its caller awaits."""

    work: Callable[[Database], T]
    future: "asyncio.Future[T]"
    loop: asyncio.AbstractEventLoop
    result: Any = None
    error: BaseException | None = None

    def deliver(self) -> None:
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Writer:
    """Runs steps one after the other, many in one transaction, each in a savepoint: if one fails, the others do not.

    A step returns once its transaction is durable. `committed` is called with the seconds that each commit took, and
    with None for one that was refused.
    """

    def __init__(
        self, connect: Callable[[], Database], committed: Callable[[float | None], None] = lambda seconds: None
    ) -> None:
        self._connect = connect
        self._committed = committed
        self._steps: queue.SimpleQueue[_Step[Any] | None] = queue.SimpleQueue()
        self._database: Database | None = None
        self._thread = threading.Thread(target=self._serve, name="ledger", daemon=True)
        self._started: Future[None] = Future()
        self._closed = False
        # The steps of the largest commit that was refused, until `probe` has committed as much.
        self.refused = 0

    async def start(self) -> None:
        """Open the database; raises SettingsError."""
        self._thread.start()
        await asyncio.wrap_future(self._started)

    async def run(self, work: Callable[[Database], T]) -> T:
        """Run `work` in a transaction; raises what it raises, StorageFull and StorageUnavailable.

        If the caller is cancelled, work that has not begun is dropped, but work that has begun is committed.
        """
        if self._closed or self._steps.qsize() > MAX_WAITING:
            raise StorageUnavailable("the ledger is closed" if self._closed else "too much waits for the ledger")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        step = _Step(work, future, loop)
        self._steps.put(step)
        return await future

    async def probe(self) -> None:
        """Commit as much as was refused, if anything was; raises StorageFull, StorageUnavailable.

        Reading, or a small commit, proves nothing: a full disk may still take it.
        """
        if refused := self.refused:
            await self.run(lambda database: _probe(database, PROBE_BYTES * refused))
            if self.refused == refused:
                self.refused = 0

    async def close(self) -> None:
        """Commit the steps that wait, then close the database."""
        if not self._closed:
            self._closed = True
            self._steps.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _serve(self) -> None:
        try:
            self._database = self._connect()
        except BaseException as error:
            self._started.set_exception(error)
            return
        self._started.set_result(None)
        maintain_at = time.monotonic() + MAINTENANCE_SECONDS
        while steps := self._next_group():
            self._commit([step for step in steps if not step.future.cancelled()])
            _deliver(steps)
            if time.monotonic() >= maintain_at:
                self._maintain()
                maintain_at = time.monotonic() + MAINTENANCE_SECONDS
        self._database.close()

    def _next_group(self) -> list[_Step[Any]]:
        """The steps that wait, at most MAX_GROUP; blocks until there is one. Empty after `close`."""
        group: list[_Step[Any]] = []
        step = self._steps.get()
        while step is not None:
            group.append(step)
            if len(group) == MAX_GROUP:
                return group
            try:
                step = self._steps.get_nowait()
            except queue.Empty:
                return group
        if group:
            self._steps.put(None)
        return group

    def _commit(self, steps: list[_Step[Any]]) -> None:
        began = time.perf_counter()
        try:
            database = self._usable()
            with database.transaction():
                for step in steps:
                    _run(step, database)
        except BaseException as error:
            for step in steps:
                step.error = error if isinstance(error, ServiceError) else _fault(error)
            self.refused = max(self.refused, len(steps))
            self._committed(None)
        else:
            self._committed(time.perf_counter() - began)

    def _usable(self) -> Database:
        """The database, connected again if the connection was lost."""
        if self._database is None or not self._database.alive():
            try:
                self._database = self._connect()
            except SettingsError as error:
                raise StorageUnavailable("the ledger cannot be reached") from error
        return self._database

    def _maintain(self) -> None:
        try:
            self._usable().maintain()
        except ServiceError as error:
            log.warning("maintenance of the ledger failed: %s", error.detail)


def _run(step: _Step[Any], database: Database) -> None:
    """Run one step in a savepoint. Errors of the database, unlike those of the step, fail the whole group."""
    try:
        with database.savepoint():
            step.result = step.work(database)
    except (StorageFull, StorageUnavailable):
        raise
    except Exception as error:
        step.error = error


def _probe(database: Database, size: int) -> None:
    database.run(statements.INSERT_PROBE, {"data": "x" * size})
    database.run(statements.DELETE_PROBE)


def _fault(error: BaseException) -> ServiceError:
    log.error("the ledger failed", exc_info=error)
    return StorageUnavailable("the ledger met an unexpected fault")


def _deliver(steps: Iterable[_Step[Any]]) -> None:
    """Resolve the futures of each event loop with one callback."""
    for loop, group in groupby(steps, attrgetter("loop")):
        try:
            loop.call_soon_threadsafe(_deliver_all, list(group))
        except RuntimeError:
            log.debug("an event loop was closed before the ledger answered")


def _deliver_all(steps: Iterable[_Step[Any]]) -> None:
    for step in steps:
        step.deliver()
