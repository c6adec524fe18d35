"""A request that this process runs, and how it was submitted."""

import asyncio
from dataclasses import dataclass, field

from service.callers import Caller
from service.errors import ServiceError
from service.jobs.record import LedgerRecord
from service.ledger.rows import Mode
from service.orders import Failed, Variation

ROUTE = "POST /api/thumbnails"
GENERATIONS, EDITS = "POST /v1/images/generations", "POST /v1/images/edits"
# The principal of requests of the command line, which has no API key.
COMMAND_LINE = "cli"

BodyId = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Submission:
    """How a request was submitted; the fingerprint is a digest of its body.

    `retries`: it is an automatic retry, which joins an earlier request with the same body if there is one.
    """

    caller: Caller
    mode: Mode = "sync"
    idempotency_key: str | None = None
    fingerprint: str = ""
    route: str = ROUTE
    retries: bool = False

    @property
    def outlives_client(self) -> bool:
        """Whether the request goes on when its client disconnects."""
        return outlives_client(self.route, self.mode, self.idempotency_key)

    @property
    def body_id(self) -> BodyId:
        """Equal for two submissions of one caller to one route with the same body."""
        return self.caller.principal, self.route, self.fingerprint


def outlives_client(route: str, mode: Mode, idempotency_key: str | None) -> bool:
    """Whether a client that disconnected can find its request again: by its id, its key, or an automatic retry."""
    return mode == "async" or idempotency_key is not None or route in (GENERATIONS, EDITS)


@dataclass(eq=False, slots=True)
class Job:
    """A request that runs in this process; `ended` is set once its last call has ended and is recorded."""

    request_id: str
    submission: Submission
    records: dict[int, LedgerRecord]
    outcomes: list[Variation | Failed] = field(default_factory=list)
    error: ServiceError | None = None
    task: asyncio.Task[None] | None = None
    begun: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def stopped(self) -> bool:
        """Whether it was abandoned before anything was sent."""
        return self.task is not None and self.task.cancelled() and not self.outcomes

    def abandon(self) -> None:
        """Send nothing more; the replies to calls that were sent are received, kept and exported."""
        if self.task:
            self.task.cancel()
