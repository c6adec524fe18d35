"""The circuit breaker: backoff, probes, slow start, retry budgets."""

import asyncio
import math
import random

import pytest
from aiohttp import web

from service.emulator.responders import PendingRequest, error, one_picture
from service.errors import GeminiError, GeminiUnavailable, OutcomeUnknown, StorageFull
from service.gemini import queue
from service.gemini.backoff import SHORTEST_INTERVAL_SECONDS
from service.gemini.call import CallHooks
from tests.gemini.conftest import CALL, Connect
from tests.gemini.virtual import Attempt, Outcome, ScriptedGemini, now, refused, run
from tests.helpers import QuickEmulator

# Tasks run at the exact time of their timer: equal times differ only by rounding.
ROUNDING = 1e-6


@pytest.fixture(params=range(5), autouse=True)
def jitter(request: pytest.FixtureRequest) -> None:
    """Run each test with several seeds of the jitter."""
    random.seed(request.param)


async def ask_all(gemini: ScriptedGemini, count: int) -> list[float | GeminiError]:
    return await asyncio.gather(*(gemini.ask(f"call {number}") for number in range(count)))


@pytest.mark.parametrize("took", [0.001, 0.3])
def test_if_gemini_always_refuses_the_last_call_fails_within_the_budget(took: float) -> None:
    async def scenario() -> None:
        gemini = ScriptedGemini(lambda _: (took, refused()), slots=2, retry=4)
        answers = await ask_all(gemini, 20)
        assert now() <= 4 + 2 * took
        for answer in answers:
            assert isinstance(answer, GeminiUnavailable)
            assert (answer.billed, answer.worth_retrying) == (False, True)
        assert len({id(answer) for answer in answers}) == 20
        # Two were sent at first; then one probe after each pause.
        assert 3 <= len(gemini.attempts) <= 6
        assert min(gemini.intervals[1:]) >= 0.5
        await gemini.assert_idle(2)

    run(scenario())


@pytest.mark.parametrize("slots", [3, 64])
def test_after_a_pause_one_call_probes_and_the_others_follow_at_intervals(slots: int) -> None:
    async def scenario() -> None:
        first = min(20, slots)
        gemini = ScriptedGemini(lambda one: (0.01, refused()) if one.number <= first else 0.2, slots)
        assert all(isinstance(answer, float) for answer in await ask_all(gemini, 20))
        after = gemini.attempts[first:]
        assert len(after) == 20
        # No call follows the probe before its answer.
        assert after[1].at >= after[0].at + 0.2
        intervals = gemini.intervals[first:]
        assert min(intervals) >= SHORTEST_INTERVAL_SECONDS / 2
        if slots == 64:
            # Slow start: the second half takes less than half of the time of the first.
            assert sum(intervals[10:]) < sum(intervals[1:10]) / 2
            assert now() < 8
        await gemini.assert_idle(slots)

    run(scenario())


def test_a_refusal_after_an_accepted_probe_starts_a_new_pause() -> None:
    async def scenario() -> None:
        gemini = ScriptedGemini(lambda one: (0.01, refused()) if one.number in (1, 2, 3, 4, 7) else 0.1, retry=60)
        assert all(isinstance(answer, float) for answer in await ask_all(gemini, 4))
        assert len(gemini.attempts) == 9
        assert gemini.intervals[6] >= 0.5

    run(scenario())


def test_pauses_double_up_to_a_limit() -> None:
    async def scenario() -> None:
        gemini = ScriptedGemini(lambda _: (0.01, refused()), retry=3600)
        asking = asyncio.create_task(gemini.ask())
        await asyncio.sleep(300)
        asking.cancel()
        for number, gap in enumerate(gemini.intervals):
            assert 0.5 <= (gap - 0.01) / min(2**number, 16) <= 1 + ROUNDING
        assert len(gemini.intervals) > 15

    run(scenario())


def test_a_pause_is_at_least_what_gemini_asked_for() -> None:
    async def scenario() -> None:
        gemini = ScriptedGemini(lambda one: (0.1, refused(7)) if one.number <= 4 else 0.1)
        await ask_all(gemini, 4)
        assert min(one.at for one in gemini.attempts[4:]) >= 7.1 - ROUNDING

    run(scenario())


def test_a_probe_that_takes_longer_than_the_budget_does_not_hold_up_the_others() -> None:
    async def scenario() -> None:
        gemini = ScriptedGemini(lambda one: (0.05, refused()) if one.number <= 4 else 20, retry=4)
        answers = await ask_all(gemini, 4)
        assert all(isinstance(answer, float) for answer in answers), answers
        assert max(one.at for one in gemini.attempts) <= 4.05

    run(scenario())


def test_no_budget_runs_while_a_call_waits_behind_successful_ones() -> None:
    async def scenario() -> None:
        # The first call is refused at the start, the last one when it is sent, long after the budget.
        gemini = ScriptedGemini(lambda one: (0.01, refused()) if one.number in (1, 11) else 5, slots=1, retry=2)
        answers = await ask_all(gemini, 10)
        assert all(isinstance(answer, float) for answer in answers), answers
        assert len(gemini.attempts) == 12

    run(scenario())


def test_a_call_that_is_always_refused_among_successful_ones_fails_within_its_budget() -> None:
    async def scenario() -> None:
        def outcome(one: Attempt) -> Outcome:
            return (0.01, refused()) if one.call.prompt == "unlucky" else 0.5

        gemini = ScriptedGemini(outcome, slots=4, retry=5)
        unlucky = asyncio.create_task(gemini.ask("unlucky"))
        others = [asyncio.create_task(gemini.ask()) for _ in range(60)]
        assert isinstance(await unlucky, GeminiUnavailable)
        assert now() <= 6
        assert all(isinstance(answer, float) for answer in await asyncio.gather(*others))

    run(scenario())


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_if_gemini_refuses_some_calls_all_in_a_long_queue_succeed(share: float) -> None:
    async def scenario() -> None:
        gemini = ScriptedGemini(lambda _: (0.05, refused()) if random.random() < share else 10, slots=16, retry=60)
        answers = await ask_all(gemini, 300)
        assert sum(isinstance(answer, float) for answer in answers) >= 295
        assert now() > 2 * 60
        await gemini.assert_idle(16)

    run(scenario())


def test_a_budget_runs_from_the_first_refusal_after_the_call_was_queued() -> None:
    async def scenario() -> None:
        gemini = ScriptedGemini(lambda one: (0.01, refused(6)) if one.number <= 2 else 0.1, retry=10)
        first = asyncio.create_task(gemini.ask("first"))
        await asyncio.sleep(5)
        second = asyncio.create_task(gemini.ask("second"))
        # Refusals at 0 and 6: the budget of the first call ends at 10, before the pause does; that of the second at 16.
        assert isinstance(await first, GeminiUnavailable)
        assert now() == pytest.approx(6.02, abs=0.01)
        assert isinstance(await second, float)

    run(scenario())


@pytest.mark.parametrize("seconds", [31, 3600, math.inf])
def test_a_pause_beyond_the_budget_fails_the_whole_queue_at_once_but_no_later_call(seconds: float) -> None:
    async def scenario() -> None:
        gemini = ScriptedGemini(lambda one: (0.1, refused(seconds)) if one.number <= 2 else 0.1, slots=2)
        answers = await ask_all(gemini, 20)
        assert all(isinstance(answer, GeminiUnavailable) for answer in answers)
        assert now() <= 0.2
        assert len(gemini.attempts) == 2
        await gemini.assert_idle(2)
        assert isinstance(await gemini.ask(), float)

    run(scenario())


def test_a_call_during_a_pause_beyond_any_budget_fails_at_once() -> None:
    async def scenario() -> None:
        gemini = ScriptedGemini(lambda one: (0.1, refused(3600)) if one.number == 2 else 60)
        long = asyncio.create_task(gemini.ask("long"))
        await asyncio.sleep(1)
        assert isinstance(await gemini.ask("refused"), GeminiUnavailable)
        assert isinstance(await gemini.ask("late"), GeminiUnavailable)
        assert len(gemini.attempts) == 2
        assert isinstance(await long, float)
        assert isinstance(await gemini.ask("later"), float)

    run(scenario())


def test_retry_after_is_the_rest_of_the_pause() -> None:
    async def scenario() -> None:
        gemini = ScriptedGemini(lambda one: (0.1, refused(3600)) if one.number == 2 else 1000)
        long = asyncio.create_task(gemini.ask("keeps the breaker"))
        await asyncio.sleep(1)
        first = await gemini.ask("refused")
        await asyncio.sleep(600)
        late = await gemini.ask("late")
        assert isinstance(first, GeminiUnavailable)
        assert isinstance(late, GeminiUnavailable)
        assert (first.headers, late.headers) == ({"Retry-After": "3600"}, {"Retry-After": "3000"})
        long.cancel()

    run(scenario())


def test_calls_that_expire_in_the_queue_have_a_retry_after() -> None:
    async def scenario() -> None:
        gemini = ScriptedGemini(lambda _: (0.01, refused()), slots=2, retry=4)
        for answer in await ask_all(gemini, 20):
            assert isinstance(answer, GeminiUnavailable)
            assert 1 <= int(answer.headers["Retry-After"]) <= 4

    run(scenario())


def test_an_answer_to_a_call_that_was_sent_before_the_refusal_does_not_end_the_pause() -> None:
    async def scenario() -> None:
        outcomes: dict[int, Outcome] = {1: 2, 2: (0.1, refused(10))}
        gemini = ScriptedGemini(lambda one: outcomes.get(one.number, 1))
        early = asyncio.create_task(gemini.ask("early"))
        await asyncio.sleep(0.5)
        late = asyncio.create_task(gemini.ask("late"))
        await early
        assert isinstance(await late, float)
        assert gemini.attempts[2].at >= 10.6 - ROUNDING

    run(scenario())


def test_a_pause_outlasts_the_call_that_was_refused() -> None:
    async def scenario() -> None:
        gemini = ScriptedGemini(lambda one: (0.1, refused(10)) if one.number == 1 else 1)
        gone = asyncio.create_task(gemini.ask("gone"))
        await asyncio.sleep(1)
        gone.cancel()
        await asyncio.sleep(1)
        assert isinstance(await gemini.ask("next"), float)
        assert gemini.attempts[1].at >= 10.1 - ROUNDING
        await gemini.assert_idle(64)

    run(scenario())


def test_a_model_in_a_pause_occupies_no_slot_of_other_models() -> None:
    async def scenario() -> None:
        gemini = ScriptedGemini(lambda one: (0.1, refused(20)) if one.call.model == "busy" else 1, slots=1)
        busy = [asyncio.create_task(gemini.ask(model="busy")) for _ in range(5)]
        await asyncio.sleep(0.5)
        for _ in range(3):
            assert isinstance(await gemini.ask(model="idle"), float)
        assert now() == pytest.approx(3.5)
        for task in busy:
            task.cancel()
        await asyncio.wait(busy)

    run(scenario())


def test_a_refused_call_keeps_its_position_behind_the_probe() -> None:
    async def scenario() -> None:
        gemini = ScriptedGemini(lambda one: (0.1, refused()) if one.number == 1 else 1, slots=1)
        await ask_all(gemini, 6)
        assert [one.call.prompt for one in gemini.attempts] == [f"call {number}" for number in (0, 1, 0, 2, 3, 4, 5)]

    run(scenario())


def test_after_a_probe_with_a_broken_connection_the_others_follow() -> None:
    async def scenario() -> None:
        broken = OutcomeUnknown("the connection broke", billed=None)
        outcomes: dict[int, Outcome] = {1: (0.1, refused()), 2: (0.1, refused()), 3: (5, broken)}
        gemini = ScriptedGemini(lambda one: outcomes.get(one.number, 1))
        answers = await ask_all(gemini, 2)
        assert answers[0] is broken
        assert isinstance(answers[1], float)

    run(scenario())


class FailingHooks(CallHooks):
    async def prepare(self) -> None:
        raise StorageFull("no space is left")


def test_if_a_probe_fails_before_it_is_sent_the_next_call_probes_at_once() -> None:
    async def scenario() -> None:
        gemini = ScriptedGemini(lambda one: (0.1, refused(5)) if one.number == 1 else 1)
        first = asyncio.create_task(gemini.ask("first"))
        await asyncio.sleep(1)
        tasks = [asyncio.create_task(gemini.ask(hooks=FailingHooks())) for _ in range(10)]
        last = asyncio.create_task(gemini.ask("last"))
        first.cancel()
        assert isinstance(await last, float)
        assert gemini.attempts[1].at == pytest.approx(5.1)
        assert {type(task.exception()) for task in tasks} == {StorageFull}

    run(scenario())


def test_the_number_of_breakers_is_bounded() -> None:
    async def scenario() -> None:
        gemini = ScriptedGemini(lambda _: (0.1, refused(20)), slots=10_000)
        tasks = [asyncio.create_task(gemini.ask(model=f"model-{number}")) for number in range(1500)]
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert len(gemini._queue._breakers) <= queue.MAX_IDLE_BREAKERS
        await gemini.assert_idle(10_000)

    run(scenario())


@pytest.mark.parametrize("seed", range(20))
def test_refused_broken_and_cancelled_calls_leak_no_slot(seed: int) -> None:
    async def scenario() -> None:
        chance = random.Random(seed)

        def outcome(one: Attempt) -> Outcome:
            took = chance.uniform(0, 2)
            faults = [None, refused(chance.choice([None, None, 3, 50])), OutcomeUnknown("broke", billed=None)]
            [fault] = chance.choices(faults, [5, chance.choice([1, 20]), 1])
            return (took, fault) if fault else took

        gemini = ScriptedGemini(outcome, slots=5, retry=10)
        tasks = []
        for number in range(150):
            hooks = FailingHooks() if chance.random() < 0.05 else None
            tasks.append(asyncio.create_task(gemini.ask(str(number), chance.choice("abc"), hooks)))
            await asyncio.sleep(chance.choice([0, 0, 0.1]))
            if chance.random() < 0.3:
                chance.choice(tasks).cancel()
            assert gemini.in_flight <= 5
        await asyncio.wait(tasks)
        await gemini.assert_idle(5)

    run(scenario())


async def test_calls_over_real_sockets_do_not_resume_in_step(connect: Connect, quick_backoff: None) -> None:
    arrivals: list[float] = []
    busy, good = error(503, "busy"), one_picture

    async def notes(asked: PendingRequest) -> web.StreamResponse:
        arrivals.append(asyncio.get_running_loop().time())
        return await (busy if asked.number <= 20 else good)(asked)

    gemini = await connect(QuickEmulator(then=notes), retry=30)
    await asyncio.gather(*(gemini.generate_image(CALL) for _ in range(20)))
    assert len(arrivals) == 40
    first, *others = arrivals[20:]
    # Spread over time, unlike the first 20.
    assert max(others) - first > 20 * SHORTEST_INTERVAL_SECONDS / 2
    assert gemini._queue._breakers == {}
