"""A circuit breaker for each model, with exponential backoff, slow start, and a retry budget for each call.

- Closed: calls go out as they come.
- Open: Gemini refused a call (429, 503, no connection), and no call goes out until the pause is over. It has jitter,
  doubles each time a probe is refused, and is at least as long as Gemini asked for.
- Half-open: one call goes out as a probe. It counts as accepted once it was answered, or has been out for longer than
  a refusal takes. The other calls then follow one by one, at jittered intervals that shrink while nothing is refused
  (slow start), so that they never resume all at once.

A refusal opens the breaker again. An answer to a call that was sent after the last refusal closes it; calls that are
held back by then still follow one by one.

The retry budget of a call runs from the first refusal of its model while the call is queued or in flight. As long as
the call was not refused itself, every answer of the model ends that budget, and the next refusal begins a new one: the
call only waits behind others that succeed. A call that cannot go out within its budget fails with the last refusal.
"""

import asyncio
import copy
import enum
import math
import random
from bisect import insort
from collections.abc import Collection
from dataclasses import dataclass, field
from operator import attrgetter

from service.errors import GeminiError
from service.gemini.refusals import NotExecuted, retry_after

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 16.0
# A refusal comes at once, a picture takes 10 s and more: a probe that is out for this long counts as accepted.
PROBE_SECONDS = 1.0
FIRST_INTERVAL_SECONDS = 0.5
SHORTEST_INTERVAL_SECONDS = 0.01
INTERVAL_FACTOR = 0.8

ARRIVAL = attrgetter("number")
_FEWEST_REFUSALS = attrgetter("refusals", "number")


class State(enum.Enum):
    CLOSED = enum.auto()
    OPEN = enum.auto()
    HALF_OPEN = enum.auto()


@dataclass(eq=False, slots=True)
class QueuedCall:
    """A call, queued or in flight. A lower `number` arrived earlier; `slot` is done once the call has a slot.

    `deadline` is the end of its retry budget, infinite while no budget runs.
    """

    number: int
    breaker: "Breaker"
    slot: "asyncio.Future[None]"
    started_at: float = -math.inf
    deadline: float = math.inf
    refusals: int = 0

    @property
    def out_of_budget(self) -> bool:
        """Whether the breaker stays open beyond its deadline."""
        return self.breaker.state is not State.CLOSED and self.deadline < self.breaker.resume_at


@dataclass(eq=False, slots=True)
class Breaker:
    """The circuit breaker of one model. It only computes: the caller passes the time in seconds, and nothing waits.

    calls      all calls of the model
    held_back  those that may not be sent yet, oldest first
    released   the call that may be sent now; the next one is released once it is in flight
    refusal    the last refusal, while the breaker is not closed
    """

    model: str
    budget: float
    calls: set[QueuedCall] = field(default_factory=set)
    held_back: list[QueuedCall] = field(default_factory=list)
    released: QueuedCall | None = None
    state: State = State.CLOSED
    refusal: NotExecuted | None = None
    # When the pause is over, and when the next call may be released.
    resume_at: float = -math.inf
    next_at: float = -math.inf
    timer: asyncio.TimerHandle | None = None
    _refused_at: float = -math.inf
    _refusal_took: float = 0.0
    _probe_accepted_at: float = math.inf
    _refused_probes: int = 0
    _interval: float = FIRST_INTERVAL_SECONDS

    @property
    def holds_back(self) -> bool:
        """Whether a new call has to wait for its release."""
        return self.state is not State.CLOSED or self.released is not None or bool(self.held_back)

    def hold_back(self, call: QueuedCall) -> None:
        insort(self.held_back, call, key=ARRIVAL)

    def refuse(self, call: QueuedCall, refusal: NotExecuted, now: float) -> None:
        """Open, or extend the pause."""
        # During a pause, the refusal of a call that was sent before the last refusal says nothing new.
        is_news = call.started_at >= self._refused_at or now >= self.resume_at
        pause = self._next_pause(now) if is_news else 0
        self.resume_at = self.next_at = max(self.resume_at, now + max(pause, refusal.seconds or 0))
        self.state, self.refusal = State.OPEN, refusal
        self._refused_at, self._refusal_took = now, now - call.started_at
        self._probe_accepted_at, self._interval = math.inf, FIRST_INTERVAL_SECONDS
        call.refusals += 1
        for each in self.calls:
            each.deadline = min(each.deadline, now + self.budget)

    def _next_pause(self, now: float) -> float:
        self._refused_probes = 1 if now >= self._probe_accepted_at else self._refused_probes + 1
        doubled = FIRST_PAUSE_SECONDS * 2 ** min(self._refused_probes - 1, 16)
        return _jittered(min(doubled, LONGEST_PAUSE_SECONDS), 0.5, 1)

    def error(self, refusal: NotExecuted, now: float) -> GeminiError:
        """A copy of a refusal's error, with the rest of the pause as its Retry-After.

        The error of a lasting quota, whose pause never ends, has a Retry-After of its own.
        """
        error = copy.copy(refusal.error)
        if self.resume_at < math.inf:
            error.headers = error.headers | retry_after(self.resume_at - now)
        return error

    def answer(self, call: QueuedCall, now: float) -> None:
        """Gemini executed this call: close if it was sent after the last refusal, and end the budgets of the others."""
        if self.state is State.CLOSED:
            return
        for each in self.calls:
            if not each.refusals:
                each.deadline = math.inf
        if call.started_at >= self._refused_at:
            self.state, self.refusal, self._refused_probes = State.CLOSED, None, 0
            self.next_at = min(self.next_at, now + _jittered(self._interval))

    def release(self, now: float) -> QueuedCall | None:
        """Take out the next call that may go out now."""
        if not self.held_back or self.released or now < self.next_at:
            return None
        # Each probe is another call, or one that Gemini always refuses would hold up all others.
        is_probe = self.state is State.OPEN
        self.released = min(self.held_back, key=_FEWEST_REFUSALS) if is_probe else self.held_back[0]
        self.held_back.remove(self.released)
        return self.released

    def sent(self, call: QueuedCall, now: float) -> None:
        """The released call is in flight: set the time of the next release."""
        if self.released is not call:
            return
        self.released = None
        if self.state is State.OPEN:
            left = max(self._first_deadline() - now, 0)
            self.next_at = now + max(1.5 * self._refusal_took, min(PROBE_SECONDS, left / 2))
            self.state, self._probe_accepted_at = State.HALF_OPEN, self.next_at
        else:
            self.next_at = now + _jittered(self._interval)
            self._interval = max(SHORTEST_INTERVAL_SECONDS, self._interval * INTERVAL_FACTOR)

    def expire(self, now: float) -> Collection[QueuedCall]:
        """Take out the calls that cannot go out within their budget; none once a probe is accepted."""
        if self.state is State.CLOSED:
            return ()
        end = min(now, self._probe_accepted_at)
        expired = {call for call in self.held_back if call.out_of_budget or call.deadline <= end}
        self.held_back = [call for call in self.held_back if call not in expired]
        return expired

    def next_event_at(self) -> float:
        """When to call `release` and `expire` next."""
        if not self.held_back:
            return math.inf
        release_at = math.inf if self.released else self.next_at
        if self.state is State.CLOSED:
            return release_at
        deadline = self._first_deadline()
        return min(release_at, deadline) if deadline <= self._probe_accepted_at else release_at

    def _first_deadline(self) -> float:
        return min((call.deadline for call in self.held_back), default=math.inf)


def _jittered(seconds: float, low: float = 0.5, high: float = 1.5) -> float:
    return seconds * random.uniform(low, high)  # noqa: S311  # jitter
