"""An event loop with a virtual clock, and a GeminiService on it with scripted outcomes instead of a network."""

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
    """Instead of waiting, the clock jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        select = self._selector.select  # type: ignore[attr-defined]  # of every selector loop

        def jump(timeout: float | None) -> Any:
            if timeout is None:
                raise AssertionError("all tasks wait, and no timer is set")
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
class Attempt:
    """One attempt that was sent: its number, its time, its call."""

    number: int
    at: float
    call: Call


# How many seconds an attempt takes, and what it then raises.
Outcome = float | tuple[float, Exception]


class ScriptedGemini(GeminiService):
    """A GeminiService whose attempts end as `outcome` says."""

    def __init__(self, outcome: Callable[[Attempt], Outcome], slots: int = 64, retry: float = 30) -> None:
        super().__init__(None, GeminiAccess("key", retry=retry, concurrency=slots), lambda: True)  # type: ignore[arg-type]  # no wire
        self.outcome = outcome
        self.attempts: list[Attempt] = []
        self.in_flight = 0

    async def _attempt(self, call: Call, sent: Callable[[], None]) -> Reply:
        sent()
        self.attempts.append(Attempt(len(self.attempts) + 1, now(), call))
        outcome = self.outcome(self.attempts[-1])
        seconds, fault = outcome if isinstance(outcome, tuple) else (outcome, None)
        self.in_flight += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.in_flight -= 1
        if fault:
            raise fault
        return Reply(b"a picture", {})

    @property
    def intervals(self) -> list[float]:
        """Seconds between each attempt and the next."""
        return [after.at - before.at for before, after in pairwise(self.attempts)]

    async def assert_idle(self, slots: int) -> None:
        """After the last pause, assert that no state is left of calls that have ended."""
        await asyncio.sleep(60)
        queue = self._queue
        assert (queue._free_slots, queue._ready, queue._breakers, self.in_flight) == (slots, [], {}, 0)

    async def ask(
        self, name: str = "a call", model: str = "a-model", hooks: CallHooks | None = None
    ) -> float | GeminiError:
        """Make one call; returns the time of its answer, or its error."""
        try:
            await self.generate_image(Call(model, name, "1:1", "1K"), hooks)
        except GeminiError as error:
            return error
        return now()


def refused(seconds: float | None = None) -> Exception:
    return NotExecuted(GeminiUnavailable("busy"), seconds)
