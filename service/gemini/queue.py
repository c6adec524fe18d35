"""The queue of all calls: a concurrency limit, first come, first served, behind the circuit breaker of each model."""

import asyncio
import itertools
import math
from bisect import insort
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from service.errors import GeminiError, GeminiTimeout, OutcomeUnknown
from service.gemini.backoff import ARRIVAL, Breaker, QueuedCall
from service.gemini.refusals import NotExecuted

# Breakers without calls that are kept to the end of their pause; bounded, because clients choose the names of models.
MAX_IDLE_BREAKERS = 1000


class CallQueue:
    """Lets `slots` calls out at a time, the oldest first of those that no breaker holds back.

    A call that is held back occupies no slot. A refused call keeps its number, and so its position in the queue.
    """

    def __init__(self, slots: int, budget: float) -> None:
        self._free_slots = slots
        self._budget = budget
        self._numbers = itertools.count()
        self._breakers: dict[str, Breaker] = {}
        self._ready: list[QueuedCall] = []

    @contextmanager
    def join(self, model: str) -> Iterator[QueuedCall]:
        """Register a call until it has ended; raises the last refusal if the pause is longer than any budget."""
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
            self._schedule(breaker)

    @asynccontextmanager
    async def slot(self, call: QueuedCall) -> AsyncIterator[None]:
        """Wait for a slot, and report the outcome to the breaker; raises the last refusal if the budget is over.

        A timeout and a broken connection say nothing about whether Gemini takes calls.
        """
        await self._wait_for_slot(call)
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
            self._leave(call, slots=1)

    def error(self, call: QueuedCall, refusal: NotExecuted) -> GeminiError:
        """The error of a refused call that is not retried, with its Retry-After."""
        return call.breaker.error(refusal, _now())

    def sent(self, call: QueuedCall) -> None:
        """The call is in flight: its breaker may release the next one."""
        call.breaker.sent(call, _now())
        self._schedule(call.breaker)

    async def _wait_for_slot(self, call: QueuedCall) -> None:
        call.slot = asyncio.get_running_loop().create_future()
        if call.breaker.holds_back:
            call.breaker.hold_back(call)
            self._schedule(call.breaker)
        else:
            self._enqueue(call)
        try:
            await call.slot
        except asyncio.CancelledError:
            self._withdraw(call)
            raise

    def _withdraw(self, call: QueuedCall) -> None:
        """Take a cancelled call out of the queue; it may have been given a slot in the same moment."""
        for queue in (self._ready, call.breaker.held_back):
            with suppress(ValueError):
                queue.remove(call)
        has_slot = call.slot.done() and not call.slot.cancelled() and call.slot.exception() is None
        self._leave(call, slots=int(has_slot))

    def _leave(self, call: QueuedCall, slots: int) -> None:
        """Return the call's slot, if it has one, and its release, if it was not sent."""
        self._free_slots += slots
        if call.breaker.released is call:
            call.breaker.released = None
        self._assign_slots()
        self._schedule(call.breaker)

    def _enqueue(self, call: QueuedCall) -> None:
        insort(self._ready, call, key=ARRIVAL)
        self._assign_slots()

    def _assign_slots(self) -> None:
        while self._free_slots and self._ready:
            call = self._ready.pop(0)
            if not call.slot.done():
                self._free_slots -= 1
                call.started_at = _now()
                call.slot.set_result(None)

    def _refuse(self, call: QueuedCall, refusal: NotExecuted) -> None:
        breaker = call.breaker
        breaker.refuse(call, refusal, _now())
        self._hold_back_ready(breaker)
        self._expire(breaker)

    def _hold_back_ready(self, breaker: Breaker) -> None:
        """Return calls that were released, and have no slot yet, to their breaker."""
        for call in [each for each in self._ready if each.breaker is breaker]:
            self._ready.remove(call)
            breaker.released = None
            breaker.hold_back(call)

    def _expire(self, breaker: Breaker) -> None:
        for call in breaker.expire(_now()):
            if breaker.refusal and not call.slot.done():
                call.slot.set_exception(breaker.error(breaker.refusal, _now()))

    def _schedule(self, breaker: Breaker) -> None:
        """Set the timer for the breaker's next event, or drop a breaker that is no longer needed."""
        when = breaker.next_event_at() if breaker.calls else self._kept_until(breaker)
        if breaker.timer:
            breaker.timer.cancel()
        breaker.timer = None
        if not breaker.calls and when <= _now():
            self._breakers.pop(breaker.model, None)
        elif when < math.inf:
            breaker.timer = asyncio.get_running_loop().call_at(when, self._on_timer, breaker)

    def _kept_until(self, breaker: Breaker) -> float:
        """Until when a breaker without calls is kept: to the end of a pause that new calls can wait for."""
        usable = breaker.refusal and breaker.resume_at - _now() <= self._budget
        return breaker.resume_at if usable and len(self._breakers) <= MAX_IDLE_BREAKERS else -math.inf

    def _on_timer(self, breaker: Breaker) -> None:
        self._expire(breaker)
        if call := breaker.release(_now()):
            self._enqueue(call)
        self._schedule(breaker)


def _now() -> float:
    return asyncio.get_running_loop().time()
