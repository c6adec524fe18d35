"""One request at work: who asked for it and how, and how far it is."""

import asyncio
from dataclasses import dataclass, field

from service.errors import ServiceError
from service.jobs.record import LedgerRecord
from service.ledger.rows import Mode
from service.orders import Failed, Variation

ROUTE = "POST /api/thumbnails"
# The principal of the command line's requests, which no API key stands for.
COMMAND_LINE = "cli"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: `principal` stands for an API key, and sees its own requests; with `sees_all` every request."""

    principal: str
    sees_all: bool = False

    @property
    def filter(self) -> str | None:
        return None if self.sees_all else self.principal


@dataclass(frozen=True, slots=True)
class Asked:
    """How a request was made: with which key, and whether its client waits for the answer."""

    caller: Caller
    mode: Mode = "sync"
    idempotency_key: str | None = None
    fingerprint: str = ""

    @property
    def to_the_end(self) -> bool:
        """Whether the request goes on without its client."""
        return self.mode == "async" or self.idempotency_key is not None


@dataclass(eq=False, slots=True)
class Job:
    """A request at work here. `ended` is set when nothing of it is under way any more."""

    request_id: str
    asked: Asked
    records: dict[int, LedgerRecord]
    outcomes: list[Variation | Failed] = field(default_factory=list)
    error: ServiceError | None = None
    task: asyncio.Task[None] | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def stopped(self) -> bool:
        """Whether it was stopped before anything was sent."""
        return self.task is not None and self.task.cancelled() and not self.outcomes

    def abandon(self) -> None:
        """Send nothing more; what was sent is received, kept and exported."""
        if self.task:
            self.task.cancel()
