"""The line of all calls: a concurrency limit, first come, first served, behind the circuit breaker of each model."""

import asyncio
import itertools
import math
from bisect import insort
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from service.errors import GeminiError, GeminiTimeout, OutcomeUnknown
from service.gemini.backoff import AGE, Breaker, QueuedCall
from service.gemini.refusals import NotExecuted

# Breakers without calls that are kept to the end of their pause. Clients choose the names of models.
MAX_IDLE_BREAKERS = 1000


class CallQueue:
    """Lets `slots` calls out at a time, the oldest first of those that no breaker holds back.

    A call that is held back takes no slot. A refused call keeps its age, and so its place in line.
    """

    def __init__(self, slots: int, budget: float) -> None:
        self._free = slots
        self._budget = budget
        self._numbers = itertools.count()
        self._breakers: dict[str, Breaker] = {}
        self._ready: list[QueuedCall] = []

    @contextmanager
    def join(self, model: str) -> Iterator[QueuedCall]:
        """A place in line until the call has ended; raises the last refusal if the pause is longer than any budget."""
        breaker = self._breakers.get(model)
        if breaker is None:
            breaker = self._breakers[model] = Breaker(model, self._budget)
        if breaker.refusal and breaker.resume_at - _now() > self._budget:
            raise breaker.error(breaker.refusal, _now())
        call = QueuedCall(next(self._numbers), breaker, asyncio.get_running_loop().create_future())
        breaker.calls.add(call)
        try:
            yield call
        finally:
            breaker.calls.discard(call)
            self._arm(breaker)

    @asynccontextmanager
    async def slot(self, call: QueuedCall) -> AsyncIterator[None]:
        """Wait for the call's turn, and tell its breaker how it ended; raises the last refusal if the budget is over.

        A timeout and a broken connection say nothing about whether Gemini takes calls.
        """
        await self._turn(call)
        try:
            yield
        except NotExecuted as refusal:
            self._refuse(call, refusal)
            raise
        except (GeminiTimeout, OutcomeUnknown):
            raise
        except GeminiError:
            call.breaker.answer(call, _now())
            raise
        else:
            call.breaker.answer(call, _now())
        finally:
            self._give_back(call)

    def sent(self, call: QueuedCall) -> None:
        """The call is out: the next one may be let through."""
        call.breaker.sent(call, _now())
        self._arm(call.breaker)

    async def _turn(self, call: QueuedCall) -> None:
        call.turn = asyncio.get_running_loop().create_future()
        if call.breaker.holds_back:
            call.breaker.wait(call)
            self._arm(call.breaker)
        else:
            insort(self._ready, call, key=AGE)
            self._grant()
        try:
            await call.turn
        except asyncio.CancelledError:
            self._withdraw(call)
            raise

    def _withdraw(self, call: QueuedCall) -> None:
        """Take a cancelled call out of the line; its turn may have come in the same moment."""
        for line in (self._ready, call.breaker.waiting):
            with suppress(ValueError):
                line.remove(call)
        granted = call.turn.done() and not call.turn.cancelled() and call.turn.exception() is None
        self._give_back(call, int(granted))

    def _give_back(self, call: QueuedCall, slots: int = 1) -> None:
        self._free += slots
        if call.breaker.released is call:
            call.breaker.released = None
        self._grant()
        self._arm(call.breaker)

    def _grant(self) -> None:
        while self._free and self._ready:
            call = self._ready.pop(0)
            if not call.turn.done():
                self._free -= 1
                call.granted_at = _now()
                call.turn.set_result(None)

    def _refuse(self, call: QueuedCall, refusal: NotExecuted) -> None:
        breaker = call.breaker
        breaker.refuse(call, refusal, _now())
        # None of the model that still lacks a slot may go out now.
        held = [each for each in self._ready if each.breaker is breaker]
        if held:
            self._ready = [each for each in self._ready if each.breaker is not breaker]
            breaker.released = None
            breaker.waiting = sorted(breaker.waiting + held, key=AGE)
        self._give_up(breaker)

    def _give_up(self, breaker: Breaker) -> None:
        for call in breaker.give_up(_now()):
            if breaker.refusal and not call.turn.done():
                call.turn.set_exception(breaker.error(breaker.refusal, _now()))

    def _arm(self, breaker: Breaker) -> None:
        """Set the timer for what the breaker has to do next, or forget it."""
        when = breaker.wakes_at() if breaker.calls else self._kept_until(breaker)
        if breaker.timer:
            breaker.timer.cancel()
        breaker.timer = None
        if not breaker.calls and when <= _now():
            self._breakers.pop(breaker.model, None)
        elif when < math.inf:
            breaker.timer = asyncio.get_running_loop().call_at(when, self._wake, breaker)

    def _kept_until(self, breaker: Breaker) -> float:
        """A breaker without calls is of use while it is in a pause that calls to come can wait for."""
        usable = breaker.refusal and breaker.resume_at - _now() <= self._budget
        return breaker.resume_at if usable and len(self._breakers) <= MAX_IDLE_BREAKERS else -math.inf

    def _wake(self, breaker: Breaker) -> None:
        self._give_up(breaker)
        if call := breaker.release(_now()):
            insort(self._ready, call, key=AGE)
            self._grant()
        self._arm(breaker)


def _now() -> float:
    return asyncio.get_running_loop().time()
