"""Exponential backoff with jitter, shared by all calls of a model: a circuit breaker.

- Closed: nothing is held back.
- Open, after a refusal (429, 503, no connection): no call goes out for a pause with jitter that doubles whenever the
  probe is refused, and is at least what Gemini asked for. Refusals of calls that were sent before the last refusal say
  nothing new.
- Half-open, when the pause is over: one call goes out as a probe, the oldest of those that were refused least. Once it
  is answered, or out for longer than a refusal takes, the others follow one by one, the oldest first, at jittered
  intervals that shrink while nothing is refused (a slow start), so that calls never resume in step. A refusal opens
  the breaker again; the answer to a call that was sent after the last refusal closes it, and calls that were held back
  still follow one by one.

The retry budget of a call begins when its model is refused while the call is in line or out. Unless the call was
refused itself, it begins anew after each answer of the model: the call only waits behind others that go well. A call
that cannot go out within its budget ends as the last refusal did, but not while a probe is accepted.
"""

import asyncio
import copy
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
# A refusal comes at once, a picture takes 10 s and more: a probe that is out for so long is taken for accepted.
PROBE_SECONDS = 1.0
FIRST_GAP_SECONDS = 0.5
SHORTEST_GAP_SECONDS = 0.01
GAP_FACTOR = 0.8

AGE = attrgetter("number")
_REFUSALS = attrgetter("refusals", "number")


@dataclass(eq=False, slots=True)
class QueuedCall:
    """One call, in line or out; a lower `number` is older. `deadline` is the end of its retry budget, once it runs."""

    number: int
    breaker: "Breaker"
    turn: "asyncio.Future[None]"
    granted_at: float = -math.inf
    deadline: float = math.inf
    refusals: int = 0

    @property
    def hopeless(self) -> bool:
        """Whether it cannot be sent again within its budget."""
        return self.breaker.refusal is not None and self.deadline < self.breaker.resume_at


@dataclass(eq=False, slots=True)
class Breaker:
    """The circuit breaker of one model. It only computes: times are the caller's, in seconds, and nothing waits here.

    `refusal` is what opened it, None while closed; `calls` are all of the model, `waiting` those that are held back,
    `released` the one that was let through and is not out yet.
    """

    model: str
    budget: float
    calls: set[QueuedCall] = field(default_factory=set)
    waiting: list[QueuedCall] = field(default_factory=list)
    released: QueuedCall | None = None
    refusal: NotExecuted | None = None
    resume_at: float = -math.inf
    next_at: float = -math.inf
    timer: asyncio.TimerHandle | None = None
    _refused_at: float = -math.inf
    _accepted_at: float = math.inf
    _refusal_took: float = 0.0
    _first_deadline: float = math.inf
    _rounds: int = 0
    _gap: float = FIRST_GAP_SECONDS
    _probing: bool = False

    @property
    def holds_back(self) -> bool:
        return self.refusal is not None or self.released is not None or bool(self.waiting)

    def wait(self, call: QueuedCall) -> None:
        insort(self.waiting, call, key=AGE)
        self._first_deadline = min(self._first_deadline, call.deadline)

    def refuse(self, call: QueuedCall, refusal: NotExecuted, now: float) -> None:
        """Open, or stay open for longer."""
        pause = 0.0
        if call.granted_at >= self._refused_at or now >= self.resume_at:
            self._rounds = 1 if now >= self._accepted_at else self._rounds + 1
            pause = _jittered(min(FIRST_PAUSE_SECONDS * 2 ** min(self._rounds - 1, 16), LONGEST_PAUSE_SECONDS), 0.5, 1)
        self.refusal, self._refused_at, self._refusal_took = refusal, now, now - call.granted_at
        self.resume_at = self.next_at = max(self.resume_at, now + max(pause, refusal.seconds or 0))
        self._gap, self._probing, self._accepted_at = FIRST_GAP_SECONDS, True, math.inf
        call.refusals += 1
        for each in self.calls:
            each.deadline = min(each.deadline, now + self.budget)
        refusal.error.headers |= self._retry_after(now)

    def error(self, refusal: NotExecuted, now: float) -> GeminiError:
        """A copy of a refusal's error, with what is left of the pause as its Retry-After."""
        error = copy.copy(refusal.error)
        error.headers = error.headers | self._retry_after(now)
        return error

    def _retry_after(self, now: float) -> dict[str, str]:
        """Empty for a quota that lasts: its error says when to come again."""
        return retry_after(self.resume_at - now) if self.resume_at < math.inf else {}

    def answer(self, call: QueuedCall, now: float) -> None:
        """Close, if this call was sent after the last refusal. If not, some calls go well all the same."""
        if self.refusal is None:
            return
        for each in self.calls:
            if not each.refusals:
                each.deadline = math.inf
        self._first_deadline = min((each.deadline for each in self.waiting), default=math.inf)
        if call.granted_at >= self._refused_at:
            self.refusal, self._rounds, self._probing = None, 0, False
            self.next_at = min(self.next_at, now + _jittered(self._gap))

    def release(self, now: float) -> QueuedCall | None:
        """Let a call through if it is time; the next one not before this one is out."""
        if not self.waiting or self.released or now < self.next_at:
            return None
        # Another call probes each time, or one that Gemini always refuses would hold up all others.
        self.released = min(self.waiting, key=_REFUSALS) if self._probing else self.waiting[0]
        self.waiting.remove(self.released)
        return self.released

    def sent(self, call: QueuedCall, now: float) -> None:
        if self.released is not call:
            return
        self.released = None
        if self._probing:
            left = max(self._first_deadline - now, 0)
            self.next_at = now + max(1.5 * self._refusal_took, min(PROBE_SECONDS, left / 2))
            self._probing, self._accepted_at = False, self.next_at
        else:
            self.next_at = now + _jittered(self._gap)
            self._gap = max(SHORTEST_GAP_SECONDS, self._gap * GAP_FACTOR)

    def give_up(self, now: float) -> Collection[QueuedCall]:
        """Take out the waiting calls whose budget is over, or will be before the pause is."""
        if self.refusal is None:
            return ()
        end = min(now, self._accepted_at)
        over = {call for call in self.waiting if call.hopeless or call.deadline <= end}
        self.waiting = [call for call in self.waiting if call not in over]
        self._first_deadline = min((call.deadline for call in self.waiting), default=math.inf)
        return over

    def wakes_at(self) -> float:
        """When the next call is to be released or given up."""
        if not self.waiting:
            return math.inf
        turn = math.inf if self.released else self.next_at
        runs_out = self.refusal is not None and self._first_deadline <= self._accepted_at
        return min(turn, self._first_deadline) if runs_out else turn


def _jittered(seconds: float, low: float = 0.5, high: float = 1.5) -> float:
    return seconds * random.uniform(low, high)  # noqa: S311  # jitter
