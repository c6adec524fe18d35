"""An event loop whose clock jumps to the next timer, and a Gemini that is played on it without a network."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

from service.errors import GeminiError, GeminiUnavailable
from service.gemini.call import Call, CallHooks
from service.gemini.client import GeminiAccess, GeminiService
from service.gemini.refusals import NotExecuted
from service.gemini.reply import Reply

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Nothing is waited for: time goes to when the next timer is due."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        select = self._selector.select  # type: ignore[attr-defined]  # of every selector loop

        def jump(timeout: float | None) -> Any:
            if timeout is None:
                raise AssertionError("everybody waits, and nothing is due")
            self._now += timeout
            return select(0)

        self._selector.select = jump  # type: ignore[attr-defined]  # of every selector loop

    def time(self) -> float:
        return self._now


def run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass(frozen=True, slots=True)
class Sending:
    """One call that went out: when, whose, and the how manyth of all."""

    number: int
    at: float
    call: Call


# How many seconds a call takes, and what it raises after them.
Outcome = float | tuple[float, Exception]


class PlayedGemini(GeminiService):
    """The service above a wire that is played: `outcome` says what becomes of each call that goes out."""

    def __init__(self, outcome: Callable[[Sending], Outcome], slots: int = 64, retry: float = 30) -> None:
        super().__init__(None, GeminiAccess("key", retry=retry, concurrency=slots), lambda: True)  # type: ignore[arg-type]  # no wire
        self.outcome = outcome
        self.sendings: list[Sending] = []
        self.out = 0

    async def _attempt(self, call: Call, sent: Callable[[], None]) -> Reply:
        sent()
        self.sendings.append(Sending(len(self.sendings) + 1, now(), call))
        outcome = self.outcome(self.sendings[-1])
        seconds, fault = outcome if isinstance(outcome, tuple) else (outcome, None)
        self.out += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.out -= 1
        if fault:
            raise fault
        return Reply(b"a picture", {})

    @property
    def gaps(self) -> list[float]:
        """Seconds between one sending and the next."""
        return [after.at - before.at for before, after in pairwise(self.sendings)]

    async def assert_idle(self, slots: int) -> None:
        """Nothing is left of calls that have ended, once the last pause is over."""
        await asyncio.sleep(60)
        queue = self._queue
        assert (queue._free_slots, queue._ready, queue._breakers, self.out) == (slots, [], {}, 0)

    async def ask(
        self, name: str = "a call", model: str = "a-model", flight: CallHooks | None = None
    ) -> float | GeminiError:
        """One call; when it was answered, or why it was not."""
        try:
            await self.draw(Call(model, name, "1:1", "1K"), flight)
        except GeminiError as error:
            return error
        return now()


def refused(seconds: float | None = None) -> Exception:
    return NotExecuted(GeminiUnavailable("busy"), seconds)
